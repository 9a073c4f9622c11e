"""Kinds of attention as arguments: a name, or a dict with options of the kind."""

import inspect
from collections.abc import Mapping
from typing import Any

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
    name: Any = options.get('type')  # or a class, in place of the name
    known = sorted(ATTENTIONS.module_dict)
    cls = ATTENTIONS.module_dict.get(name, name)
    if not (isinstance(cls, type) and issubclass(cls, Attention)):
        raise ValueError(
            f'{argument} is {kind!r}; give a name out of '
            f'{", ".join(map(repr, known))}, or a dict with one as its type.'
        )
    options['type'] = cls
    names = kind_options(cls)
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
        parameters = inspect.signature(vars(base)['__init__']).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
        rest = {p.name for p in parameters if p.kind is p.VAR_KEYWORD}
        names -= rest
        if not rest:
            break
    return names - {'self', 'channels', 'num_heads', 'with_cp'}


def add_option(kinds: list[dict], name: str, value: object) -> None:
    """Give an option to those kinds that have it.

    Args:
        kinds (list[dict]): from :func:`read_kind`; they are changed.
        name (str): of the option.
        value: of the option.

    Raises:
        ValueError: if no kind has it, or one is given another value already.
    """
    understanding = [kind for kind in kinds if name in kind_options(kind['type'])]
    if not understanding:
        raise ValueError(
            f'{name} is {value!r} although no stage has an attention with that option, '
            "as 'rala' has, so that it would change nothing; leave it out."
        )
    for kind in understanding:
        if kind.setdefault(name, value) != value:
            raise ValueError(
                f'{name} is {value!r}, but {kind[name]!r} in attention; leave one of '
                'the two out.'
            )


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
