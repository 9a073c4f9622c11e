"""Let MMEngine give a model with our backbones what it needs of any released file.

``init_cfg`` of type ``Pretrained``, ``load_from``, ``resume``, the test of a
checkpoint, the inferencers and the EMA hook all end in MMEngine's
``load_state_dict``. After :func:`install`, that function remaps the weights of a
file to the model (:func:`mmravlt.checkpoint.remap`), says in one report what
became of them, and refuses weights of another model before anything is loaded.
Models without a RAVLT or L2ViT are loaded as before.
"""

import functools
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from mmravlt.checkpoint import (
    BACKBONE,
    MissingPrefixError,
    Report,
    WrongWeightsError,
    find_backbones,
    read_contents,
)
from mmravlt.checkpoint.contents import shapes_of
from mmravlt.checkpoint.weights import recognise, select_weights

from .weight_sources import Source, contents_of, note, source_of, with_source

_needs_all: ContextVar[bool] = ContextVar('needs_all_weights', default=False)


def install() -> None:
    """Replace MMEngine's ``load_state_dict`` and its loading with a prefix.

    And let what MMEngine's ``CheckpointLoader`` reads know its file. May be called any
    number of times, before or after MMEngine was imported.
    """
    import mmengine.runner
    from mmengine.runner import checkpoint

    if hasattr(checkpoint.load_state_dict, 'before_mmravlt'):
        return
    load_state_dict.before_mmravlt = checkpoint.load_state_dict
    checkpoint.load_state_dict = load_state_dict
    mmengine.runner.load_state_dict = load_state_dict
    checkpoint._load_checkpoint_with_prefix = load_checkpoint_with_prefix
    _note_sources(checkpoint.CheckpointLoader)


def _note_sources(loader: type) -> None:
    load = loader.load_checkpoint.__func__

    @functools.wraps(load)
    def load_checkpoint(cls, filename, *args, **kwargs):
        return note(load(cls, filename, *args, **kwargs), str(filename))

    loader.load_checkpoint = classmethod(load_checkpoint)


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
    source = source_of(weights)
    try:
        contents = read_contents(checkpoint)
    except WrongWeightsError:
        contents = None
    prefix = prefix.rstrip('.') + '.'
    cut = len(prefix)
    part = {name[cut:]: v for name, v in weights.items() if name.startswith(prefix)}
    if contents is not None and (contents.size is not None or not part):
        contents = contents.below(prefix)
        part = {own: contents.weights[name] for name, own in contents.sources.items()}
    if not part:
        parts = ', '.join(dict.fromkeys(name.split('.')[0] for name in weights))
        raise MissingPrefixError(
            f'{filename} has no weights under {prefix!r}; its names begin with {parts}'
        )
    return with_source(part, source, contents)


@contextmanager
def needs_all_weights() -> Iterator[None]:
    """Refuse weights that leave a part of the model as it was initialised.

    For testing, where the scores of such a part would mean nothing.
    """
    token = _needs_all.set(True)
    try:
        yield
    finally:
        _needs_all.reset(token)


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
    original = load_state_dict.before_mmravlt
    model, needs_all = _unwrapped(module), _needs_all.get()
    if not _has_our_backbone(model):
        if needs_all:
            _refuse_missing(model, state_dict)
        original(module, state_dict, strict, logger)
        return

    source = source_of(state_dict)
    contents = contents_of(state_dict) or recognise(state_dict, 'the checkpoint')
    if source is not None:
        contents = source.describe(contents)
    # What the file does not have stays, and MMEngine has nothing to complain of.
    weights, report = select_weights(
        model,
        contents,
        source.file if source else 'the given weights',
        strict=strict,
        needs_all=needs_all,
    )
    weights._metadata = getattr(state_dict, '_metadata', OrderedDict())
    original(module, weights, strict, logger)
    _log(report, source, logger)


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


def _has_our_backbone(model: nn.Module) -> bool:
    """Whether a model is one of our backbones or has exactly one, as its backbone.

    Where training methods hold a student and a teacher, MMEngine's models know
    best what to do with the names.
    """
    from mmravlt.models import Backbone

    places = [n for n, part in model.named_modules() if isinstance(part, Backbone)]
    # One that somebody derived from the base class is not known.
    known = [r.rstrip('.') for r in find_backbones(shapes_of(model.state_dict()))]
    return places in ([''], [BACKBONE.rstrip('.')]) and places[0] in known


def _log(report: Report, source: Source | None, logger: Any) -> None:
    """Log a report; once, where the EMA hook loads the same weights again."""
    from mmengine.logging import print_log

    text = str(report)
    if source is None or text != source.reported:
        print_log(
            text, logger='current' if logger is None else logger, level=report.level
        )
    if source is not None:
        source.reported = text
