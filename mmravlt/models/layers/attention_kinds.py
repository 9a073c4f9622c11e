"""Kinds of attention as arguments: a name, or a dict with options of the kind."""

import inspect
from collections.abc import Mapping

from mmravlt.registry import ATTENTIONS

from .attention import Attention

#: A name in ``mmravlt.registry.ATTENTIONS``, or a dict with it as ``type`` and with
#: options of the kind, such as ``dict(type='rala', kappa='relu')``.
Kind = str | Mapping


def read_kind(kind: Kind, argument: str) -> dict:
    """A kind as a dict whose ``type`` is its class, checked.

    Args:
        kind (str | dict): what was given.
        argument (str): how the argument is called.

    Raises:
        ValueError: if there is no such kind, or it has no such option.
    """
    options = dict(kind) if isinstance(kind, Mapping) else dict(type=kind)
    name = options.get('type')
    is_class = isinstance(name, type) and issubclass(name, Attention)
    known = sorted(ATTENTIONS.module_dict)
    if not is_class and name not in known:
        raise ValueError(
            f'{argument} is {kind!r}; give a name out of '
            f'{", ".join(map(repr, known))}, or a dict with one as its type.'
        )
    options['type'] = name if is_class else ATTENTIONS.module_dict[name]
    names = kind_options(options['type'])
    unknown = options.keys() - names - {'type'}
    if unknown:
        raise ValueError(
            f'{argument} is {kind!r}, but that kind has no '
            f'{", ".join(map(repr, sorted(unknown)))}; it has '
            f'{", ".join(map(repr, sorted(names)))}.'
        )
    return options


def kind_options(cls: type[Attention]) -> set[str]:
    """Names of the options of a kind: its own, and those that it passes on."""
    names: set[str] = set()
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
        rest = {p.name for p in parameters if p.kind is p.VAR_KEYWORD}
        names -= rest
        if not rest:
            break
    return names - {'self', 'channels', 'num_heads', 'with_cp'}


def build_attention(
    options: dict, channels: int, num_heads: int, with_cp: bool | str = False
) -> Attention:
    """An attention from what :func:`read_kind` returns.

    Args:
        options (dict): class and options of the kind.
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): heads; each works on C / heads neighbouring channels.
        with_cp (bool | str): what to recompute, see :class:`mmravlt.models.RAVLT`.
    """
    options = dict(options)
    return options.pop('type')(channels, num_heads, with_cp, **options)
