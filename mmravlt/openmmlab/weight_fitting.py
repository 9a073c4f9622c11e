"""Let MMEngine give a model with our backbones what it needs of any released file.

``init_cfg`` of type ``Pretrained``, ``load_from``, ``resume``, the test of a
checkpoint, the inferencers and the EMA hook all end in MMEngine's
``load_state_dict``. After :func:`install`, that function fits the weights of a
file to the model (:func:`mmravlt.checkpoint.fit`), says in one report what
became of them, and refuses weights of another model before anything is loaded.
Models without a RAVLT or L2ViT are loaded as before.
"""

import itertools
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmravlt.checkpoint import (
    BACKBONE,
    Contents,
    MissingPrefixError,
    Report,
    WrongWeightsError,
    find_backbones,
    fit,
    read_contents,
    unwrap,
)


@dataclass(frozen=True)
class _Source:
    """One set of weights in the file that was read last.

    MMEngine reads a file and then loads its weights, copied and renamed on the
    way; they are known again by one of their tensors. (Of two sets, the EMA hook
    exchanges the tensors when a training is resumed.)

    Attributes:
        number: Counts the files that were read.
        file: Its name.
        layout: Who wrote it, in words.
        averaging: Which of its sets of weights this is, in words.
        name: The name of a tensor in this set.
        tensor: That tensor.
    """

    number: int
    file: str
    layout: str
    averaging: str
    name: str
    tensor: Tensor

    def gave(self, contents: Contents) -> bool:
        """Whether weights come from this file."""
        value = contents.weights.get(self.name)
        is_alike = (
            isinstance(value, Tensor)
            and value.shape == self.tensor.shape
            and value.device == self.tensor.device
        )
        return is_alike and torch.equal(value, self.tensor)


_numbers = itertools.count()
_last_read: list[_Source] = []
_last_report: tuple[int, str] | None = None
_needs_all = False


def install() -> None:
    """Replace MMEngine's ``load_state_dict`` and its loading with a prefix.

    May be called any number of times, before or after MMEngine was imported.
    """
    import mmengine.runner
    from mmengine.runner import checkpoint

    if hasattr(checkpoint.load_state_dict, 'before_mmravlt'):
        return
    load_state_dict.before_mmravlt = checkpoint.load_state_dict
    checkpoint.load_state_dict = load_state_dict
    mmengine.runner.load_state_dict = load_state_dict
    checkpoint._load_checkpoint_with_prefix = load_checkpoint_with_prefix


def note_source(checkpoint: Any, file: str) -> Any:
    """Give a checkpoint the layout of MMEngine, and remember its file's name.

    Args:
        checkpoint: Of any layout.
        file: The file's path or address.

    Returns:
        The checkpoint as :func:`~mmravlt.checkpoint.unwrap` leaves it; a plain
        state dict of a RAVLT or L2ViT under ``state_dict``, as MMEngine's EMA hook
        expects it.
    """
    _last_read.clear()
    unwrapped = unwrap(checkpoint)
    try:
        contents = read_contents(checkpoint)
    except WrongWeightsError:  # said when it is loaded into a model
        return unwrapped
    sets = [contents]
    if contents.averaging:
        sets += [read_contents(checkpoint, averaged) for averaged in (True, False)]
    number = next(_numbers)
    for one in sets:
        tensors = ((n, v) for n, v in one.weights.items() if isinstance(v, Tensor))
        name, tensor = next(((n, v) for n, v in tensors if v.ndim > 1), (None, None))
        if name is not None:
            source = _Source(number, file, one.layout, one.averaging, name, tensor)
            _last_read.append(source)
    if contents.size is not None and 'state_dict' not in unwrapped:
        return {'meta': {}, 'state_dict': unwrapped}
    return unwrapped


def load_checkpoint_with_prefix(
    prefix: str, filename: str, map_location: Any = None
) -> dict[str, Any]:
    """Read the weights whose names begin with a prefix, and cut it off.

    A released classifier, which has no prefixes, counts as a model whose
    backbone stands under ``backbone.``.

    Args:
        prefix: What the names begin with, with or without the last dot.
        filename: Path or address of the checkpoint.
        map_location: As in ``torch.load``.

    Raises:
        MissingPrefixError: No name begins with it.
    """
    from mmengine.runner.checkpoint import _load_checkpoint

    checkpoint = _load_checkpoint(filename, map_location=map_location)
    weights = checkpoint.get('state_dict', checkpoint)
    try:
        contents = read_contents(checkpoint)
    except WrongWeightsError:
        contents = None
    if contents is not None and contents.size is not None:
        weights = contents.weights
    prefix = prefix.rstrip('.') + '.'
    cut = len(prefix)
    part = {name[cut:]: v for name, v in weights.items() if name.startswith(prefix)}
    if not part and contents is not None:  # the prefix as it stands in the file
        weights = {file: contents.weights[n] for n, file in contents.sources.items()}
        part = {name[cut:]: v for name, v in weights.items() if name.startswith(prefix)}
    if not part:
        parts = ', '.join(dict.fromkeys(name.split('.')[0] for name in weights))
        raise MissingPrefixError(
            f'{filename} has no weights under {prefix!r}; its names begin with {parts}'
        )
    return part


@contextmanager
def needs_all_weights() -> Iterator[None]:
    """Refuse weights that leave a part of the model as it was initialised.

    For testing, where the scores of such a part would mean nothing.
    """
    global _needs_all
    _needs_all = True
    try:
        yield
    finally:
        _needs_all = False


def load_state_dict(
    module: nn.Module, state_dict: Mapping, strict: bool = False, logger: Any = None
) -> None:
    """Load weights into a model, as MMEngine's function of this name does.

    A backbone of ours, and a model that has one under ``backbone.``, gets of the
    weights what it needs, under its own names; one report in the log says what that
    was.

    Args:
        module: The model.
        state_dict: The weights of any layout.
        strict: Refuse the weights unless they are exactly those of the model.
        logger: The logger or its name; None for the current one.

    Raises:
        WrongWeightsError: The weights belong to another model; it is unchanged.
    """
    from mmravlt.models.loading import check_rope

    original = load_state_dict.before_mmravlt
    model = _unwrapped(module)
    own = model.state_dict()
    expected = {n: tuple(getattr(v, 'shape', ())) for n, v in own.items()}
    if not _has_our_backbone(model, expected):
        if _needs_all:
            _refuse_missing(model, state_dict)
        original(module, state_dict, strict, logger)
        return

    contents, file, number = _recognise(state_dict)
    weights, report = fit(contents, expected, file)
    differs = report.new or report.changed or report.without_gate or report.unused
    if strict and differs:
        raise WrongWeightsError(f'strict loading asks for an exact match: {report}')
    if _needs_all and report.without_gate:
        raise WrongWeightsError(
            f'{file} ({contents}) is of a model whose attention has a gate, and this '
            'model has none: test with the config it was trained with'
        )
    if _needs_all and (report.new or report.changed):
        raise WrongWeightsError(
            f'{file} ({contents}) does not give this model {report.lacking}: test '
            'with the config it was trained with, and the same classes'
        )
    check_rope(model, weights, file)
    # What the file does not have stays, and MMEngine has nothing to complain of.
    complete = OrderedDict({**own, **weights})
    complete._metadata = getattr(state_dict, '_metadata', OrderedDict())
    original(module, complete, strict, logger)
    _log(report, number, logger)


def _refuse_missing(model: nn.Module, state_dict: Mapping) -> None:
    """Refuse weights that do not have every parameter of a model of another kind."""
    given = {
        re.sub(r'^(module\.)+', '', name): getattr(value, 'shape', None)
        for name, value in state_dict.items()
    }
    parameters = model.named_parameters()
    missing = [name for name, p in parameters if given.get(name) != p.shape]
    if missing:
        raise WrongWeightsError(
            f'the given weights do not give this {type(model).__name__} '
            f'{len(missing)} of its parameters, such as {missing[0]}: test with the '
            'config they were trained with, and the same classes'
        )


def _unwrapped(module: nn.Module) -> nn.Module:
    """The model in the wrappers that MMEngine's function steps through."""
    from mmengine.model import BaseTTAModel, is_model_wrapper

    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = module.module
    return module


def _has_our_backbone(model: nn.Module, shapes: Mapping) -> bool:
    """Whether a model is one of our backbones or has exactly one, as its backbone.

    Where training methods hold a student and a teacher, MMEngine's models know
    best what to do with the names.
    """
    from mmravlt.models import Backbone

    places = [n for n, part in model.named_modules() if isinstance(part, Backbone)]
    # One that somebody derived from the base class is not known.
    known = [root.rstrip('.') for root in find_backbones(shapes)]
    return places in ([''], [BACKBONE.rstrip('.')]) and places[0] in known


def _recognise(state_dict: Mapping) -> tuple[Contents, str, int | None]:
    """What weights are, the name of their file, and the count of its reading."""
    try:
        contents = read_contents(state_dict)
    except WrongWeightsError as error:
        raise WrongWeightsError(f'the checkpoint cannot be used: {error}') from None
    for source in _last_read:
        if source.gave(contents):
            facts = {'layout': source.layout, 'averaging': source.averaging}
            return replace(contents, **facts), source.file, source.number
    return contents, 'the given weights', None


def _log(report: Report, number: int | None, logger: Any) -> None:
    """Log a report; once, where the EMA hook loads the same weights again."""
    from mmengine.logging import print_log

    global _last_report
    text = str(report)
    if number is None or (number, text) != _last_report:
        print_log(
            text, logger='current' if logger is None else logger, level=report.level
        )
    _last_report = None if number is None else (number, text)
