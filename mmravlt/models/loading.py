"""Give a model the weights of a file, without MMEngine."""

import logging
import os
from collections.abc import Mapping

from torch import nn

from mmravlt.checkpoint import (
    Report,
    WrongWeightsError,
    download,
    find_backbones,
    fit,
    load_file,
    read_contents,
)

from .layers import RoPE2d

logger = logging.getLogger(__name__)


def load_weights(model: nn.Module, checkpoint: str | os.PathLike) -> Report:
    """Load what a model needs of a file, and log what became of the rest.

    The report is a WARNING where the file does not give the model what one would
    expect, else INFO, which Python does not show by itself.

    Args:
        model (nn.Module): a RAVLT, an L2ViT, or a model that has one as ``backbone``.
        checkpoint (str | os.PathLike): path or http(s) address of weights of any layout
            that :mod:`mmravlt.checkpoint` reads.

    Returns:
        Report: what became of the weights.

    Raises:
        CheckpointError: if the file cannot be downloaded or read, or its weights belong
            to another model; the model is unchanged.
    """
    file = os.fspath(checkpoint)
    is_address = file.startswith(('http://', 'https://'))
    expected = {n: tuple(v.shape) for n, v in model.state_dict().items()}
    if not find_backbones(expected):
        raise WrongWeightsError(
            f'{file} was not loaded because a {type(model).__name__} is no RAVLT or '
            "L2ViT and has none as its backbone: use PyTorch's load_state_dict"
        )
    loaded = load_file(download(file) if is_address else file)
    try:
        contents = read_contents(loaded)
    except WrongWeightsError as error:
        raise WrongWeightsError(f'{file} cannot be used: {error}') from None
    weights, report = fit(contents, expected, file)
    check_rope(model, weights, file)
    model.load_state_dict(weights, strict=False)
    logger.log(report.level, '%s', report)
    return report


def check_rope(model: nn.Module, weights: Mapping, file: str) -> None:
    """Check the RoPE frequencies of a file before anything is loaded.

    Args:
        model (nn.Module): the model.
        weights (Mapping): by the names of the model.
        file (str): what to call the file.

    Raises:
        WrongWeightsError: if they are not those of the model.
    """
    for name, part in model.named_modules():
        if isinstance(part, RoPE2d):
            try:  # it has no weights, so this loads nothing
                part._load_from_state_dict(weights, f'{name}.', {}, True, [], [], [])
            except RuntimeError as error:
                raise WrongWeightsError(f'{file} cannot be used: {error}') from None
