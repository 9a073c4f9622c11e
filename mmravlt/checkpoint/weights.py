"""Give a module the weights of a file."""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .contents import Contents, read_contents, shapes_of
from .download import download
from .errors import WrongWeightsError
from .families import BACKBONE, FAMILIES, find_backbones
from .loading import load_file
from .remapping import remap
from .report import Report

logger = logging.getLogger(__name__)


def load_weights(
    module: nn.Module,
    source: str | os.PathLike | Mapping,
    *,
    averaged: bool | None = None,
    strict: bool = False,
    needs_all: bool = False,
) -> Report:
    """Load the weights of a file of any layout into a backbone, or a model with one.

    The file is read without running code that it carries; it may be a released
    classifier, detector or segmentor, a checkpoint of a training, or plain weights.
    The model gets of it what it needs, and what the file does not have stays as it
    is. The report is logged, as a warning where something is odd.

    Args:
        module: A RAVLT or L2ViT, or a model that has one as ``backbone``.
        source: Path or http(s) address of the file, or what was read of it. A file
            is downloaded once, into ``checkpoints`` under ``torch.hub.get_dir()``.
        averaged: As for :func:`read_contents`.
        strict: Refuse the weights unless they are exactly those of the model.
        needs_all: Refuse weights that leave a part of the model as it was.

    Returns:
        What became of the weights; ``str()`` says it in a few lines.

    Raises:
        CheckpointError: The file cannot be downloaded or read.
        WrongWeightsError: The weights belong to another model, or the module has no
            backbone of ours; it is unchanged.
    """
    if isinstance(source, Mapping):
        checkpoint, file = source, 'the given weights'
    else:
        file = os.fspath(source)
        is_address = file.startswith(('http://', 'https://'))
        checkpoint = load_file(download(file) if is_address else file)
    if not find_backbones(shapes_of(module.state_dict())).keys() & {'', BACKBONE}:
        raise WrongWeightsError(
            f'{file} was not loaded because a {type(module).__name__} is no '
            f"{' or '.join(FAMILIES)} and has none as its backbone: use PyTorch's "
            f'load_state_dict'
        )
    contents = recognise(checkpoint, file, averaged)
    weights, report = select_weights(
        module, contents, file, strict=strict, needs_all=needs_all
    )
    module.load_state_dict(weights)
    logger.log(report.level, '%s', report)
    return report


def recognise(checkpoint: Any, file: str, averaged: bool | None = None) -> Contents:
    """As :func:`read_contents`, with the file's name in the error."""
    try:
        return read_contents(checkpoint, averaged)
    except WrongWeightsError as error:
        raise WrongWeightsError(f'{file} cannot be used: {error}') from None


def select_weights(
    module: nn.Module,
    contents: Contents,
    file: str,
    *,
    strict: bool = False,
    needs_all: bool = False,
) -> tuple[OrderedDict[str, Tensor], Report]:
    """The weights that a model is to have, of a file and its own; nothing is loaded.

    Args:
        module: As for :func:`load_weights`.
        contents: What the file holds.
        file: What to call the file in sentences.
        strict, needs_all: As for :func:`load_weights`.

    Returns:
        A state dict that has all weights of the model, and the report.

    Raises:
        WrongWeightsError: The weights belong to another model.
    """
    own = module.state_dict()
    weights, report = remap(contents, shapes_of(own), file)
    if strict and report.differs:
        raise WrongWeightsError(f'strict loading asks for an exact match: {report}')
    for partial in report.partial.values() if needs_all else ():
        raise WrongWeightsError(
            f'{file} ({contents}) {partial.refusal}: test with the config it was '
            'trained with'
        )
    if needs_all and (report.new or report.changed):
        raise WrongWeightsError(
            f'{file} ({contents}) does not give this model {report.lacking}: test '
            'with the config it was trained with, and the same classes'
        )
    _check_derived(module, weights, weights.keys() - own.keys(), file)
    return OrderedDict({**own, **weights}), report


def _check_derived(
    module: nn.Module, weights: Mapping, derived: set[str], file: str
) -> None:
    """Let the parts that derive a value see what the file holds of it."""
    for part in {name.rpartition('.')[0] for name in derived}:
        try:  # such a part has no weights, so this loads nothing
            module.get_submodule(part)._load_from_state_dict(
                weights, f'{part}.', {}, True, [], [], []
            )
        except RuntimeError as error:
            raise WrongWeightsError(f'{file} cannot be used: {error}') from None
