"""How weights in MMEngine know the file that they came from.

Between its loader and its ``load_state_dict``, MMEngine and its hooks copy, rename and
exchange weights. What PyTorch keeps beside them, ``_metadata``, goes all the way with
them, and so does the source that is kept there.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mmravlt.checkpoint import (
    BACKBONE,
    Contents,
    WrongWeightsError,
    choose_weights,
    find_backbones,
    unwrap,
)
from mmravlt.checkpoint.contents import layout_of, shapes_of


@dataclass
class Source:
    """A file whose weights are on their way into models.

    Attributes:
        file: Its name.
        layout: Who wrote it, in words.
        averaging: Which of its two sets of weights these are, in words; '' if it
            has one.
        other: A tensor of its other set, and which that is, in words: where a
            training is resumed, MMEngine's EMA hook exchanges the tensors of the two.
        reported: What was said last of its weights.
    """

    file: str
    layout: str
    averaging: str
    other: tuple[Tensor | None, str] = (None, '')
    reported: str = ''

    def describe(self, contents: Contents) -> Contents:
        """The contents of the weights, with what only the whole file tells."""
        tensor, averaging = self.other
        if not any(value is tensor for value in contents.weights.values()):
            averaging = self.averaging
        return replace(contents, layout=self.layout, averaging=averaging)


class _Metadata(OrderedDict):
    """``_metadata`` that knows the source of its weights, and their contents if known.

    A copy has the same source; a file that is written from it has none.
    """

    source: Source | None = None
    contents: Contents | None = None

    def __deepcopy__(self, memo: dict) -> '_Metadata':
        copied = _Metadata(copy.deepcopy(OrderedDict(self), memo))
        copied.source = self.source
        return copied

    def __reduce__(self) -> tuple:
        return OrderedDict, (), None, None, iter(self.items())


def note(checkpoint: Any, file: str) -> Any:
    """Give a checkpoint the layout of MMEngine, and its weights their source.

    Args:
        checkpoint: Of any layout.
        file: The file's path or address.

    Returns:
        The checkpoint as :func:`~mmravlt.checkpoint.unwrap` leaves it; a plain
        state dict of a RAVLT or L2ViT under ``state_dict``, as MMEngine's EMA hook
        expects it.
    """
    unwrapped = unwrap(checkpoint)
    try:
        weights, averaging = choose_weights(checkpoint)
    except WrongWeightsError:  # said when it is loaded into a model
        return unwrapped
    source = Source(file, layout_of(checkpoint), averaging, _other_set(checkpoint))
    if isinstance(unwrapped.get('state_dict'), Mapping):
        unwrapped['state_dict'] = with_source(unwrapped['state_dict'], source)
        return unwrapped
    sourced = with_source(unwrapped, source)
    roots = find_backbones(shapes_of(weights))
    if len(roots) == 1 or roots.keys() & {'', BACKBONE}:
        return {'meta': {}, 'state_dict': sourced}
    return sourced


def _other_set(checkpoint: Mapping) -> tuple[Tensor | None, str]:
    other = checkpoint.get('ema_state_dict')
    if not isinstance(other, Mapping):
        return None, ''
    # beside the weights, it holds the number of steps
    names = (n for n in other if str(n).startswith('module.'))
    tensor = next((other[name] for name in names), None)
    return tensor, choose_weights(checkpoint, averaged=False)[1]


def with_source(
    weights: Mapping, source: Source | None, contents: Contents | None = None
) -> OrderedDict:
    """Weights with their source beside them, and what they are if that is known."""
    if not isinstance(weights, OrderedDict):  # a dict has no place for it
        weights = OrderedDict(weights)
    weights._metadata = _Metadata(getattr(weights, '_metadata', ()))
    weights._metadata.source, weights._metadata.contents = source, contents
    return weights


def source_of(weights: Mapping) -> Source | None:
    """The source of weights; None if they do not come from a file."""
    return getattr(getattr(weights, '_metadata', None), 'source', None)


def contents_of(weights: Mapping) -> Contents | None:
    """What weights are; None if that is not known, or they were changed since.

    Or if their names are neither a backbone's nor those of a model that has one.
    """
    known = getattr(getattr(weights, '_metadata', None), 'contents', None)
    if known is None or list(weights) != list(known.sources.values()):
        return None
    is_same = all(
        value is weights[own] and own in (name, name.removeprefix(BACKBONE))
        for (name, own), value in zip(
            known.sources.items(), known.weights.values(), strict=True
        )
    )
    return known if is_same else None
