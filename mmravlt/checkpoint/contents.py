"""What a file's weights are.

Four programs write the weights of one model in names of their own, here RAVLT's:

=================  ====================  ===================================
written by         weights stand under   names
=================  ====================  ===================================
the release, DeiT  ``model``             ``layers.…``, ``proj``, ``head``
mmcv 1.x           ``state_dict``        ``backbone.layers.…``, ``neck.…``
MMEngine           ``state_dict``        the same; heads of mmpretrain ``head.fc``
anyone             the top, or a key     any of these, maybe with what wrappers add,
                   of their own          such as ``module.`` or ``_orig_mod.``
=================  ====================  ===================================

Here they all get the names that MMEngine's models have, in which the backbone
stands under ``backbone.``; :func:`~mmravlt.checkpoint.remap` then takes what a model
expects. What differs between the families of models is in :mod:`.families`.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .errors import WrongWeightsError
from .families import BACKBONE, FAMILIES, Family, Shapes, Size, find_backbones


@dataclass(frozen=True)
class Contents:
    """What a file holds; ``str()`` says it in a few words.

    Attributes:
        weights: The weights by the names of MMEngine's models.
        sources: The same names -> the names in the file.
        size: Family and size of its backbone, None if it holds none that is known.
        kind: 'backbone', 'classifier', 'detector', 'segmentor' or 'model'.
        layout: Who wrote it, in words.
        averaging: What of it is a moving average (EMA), in words; '' if nothing.
        meta: The facts beside the weights, such as the names of classes.
    """

    weights: dict[str, Tensor]
    sources: dict[str, str]
    size: Size | None
    kind: str
    layout: str
    averaging: str
    meta: dict[str, Any]

    def __str__(self) -> str:
        of = f'{self.size} ' if self.size else ''
        words = f'{of}{self.kind}, {self.layout}'
        return f'{words}; {self.averaging}' if self.averaging else words

    def below(self, prefix: str) -> 'Contents':
        """The part whose names begin with a prefix: the names here, or in the file.

        ``sources`` then holds the names without the prefix.
        """
        for names in ({name: name for name in self.weights}, self.sources):
            part = {
                name: known[len(prefix) :]
                for name, known in names.items()
                if known.startswith(prefix)
            }
            if part:
                break
        weights = {name: self.weights[name] for name in part}
        return replace(self, weights=weights, sources=part, kind=_kind(part))


def read_contents(checkpoint: Any, averaged: bool | None = None) -> Contents:
    """Recognise what a checkpoint is, and give its weights their usual names.

    Applied to the weights that it returned, it changes nothing.

    Args:
        checkpoint: What :func:`~mmravlt.checkpoint.load_file` returned.
        averaged: Of a training that kept a moving average (EMA) of its weights,
            take the average (True), the raw weights (False), or those that its
            own program evaluates (None): MMEngine and mmcv 1.x the average,
            DeiT and timm the raw weights.

    Raises:
        WrongWeightsError: It holds no weights, no average although one is
            wanted, or several known backbones in unknown places.
    """
    weights, averaging = choose_weights(checkpoint, averaged)
    roots = find_backbones(shapes_of(weights))
    root = _choose_root(roots)
    size = None if root is None else roots[root]
    is_whole = f'.{root}'.endswith(f'.{BACKBONE}')
    # What a training wraps around the model, as in student.backbone.layers
    container = (root or '').removesuffix(BACKBONE if is_whole else '')
    renamed, sources = {}, {}
    for name, value in weights.items():
        own = name.removeprefix(container)
        if size is not None and not is_whole:
            own, value = _rename_release(FAMILIES[size.family], own, value)
        renamed[own], sources[own] = value, name
    meta = checkpoint.get('meta')
    return Contents(
        renamed,
        sources,
        size,
        _kind(renamed),
        layout_of(checkpoint),
        averaging,
        meta if isinstance(meta, dict) else {},
    )


def choose_weights(
    checkpoint: Any, averaged: bool | None = None
) -> tuple[dict[str, Any], str]:
    """Find the weights in a checkpoint of any model.

    Args:
        checkpoint: What :func:`~mmravlt.checkpoint.load_file` returned.
        averaged: As for :func:`read_contents`.

    Returns:
        The weights by the names in the file, without what wrappers put into them; and
        where the file holds a moving average too, which of the two they are, in words.

    Raises:
        WrongWeightsError: It holds no weights, several that may be meant, or no
            average although one is wanted.
    """
    key, found = _find_weights(checkpoint)
    weights = _strip(found)

    # MMCV 1.x keeps the other set as buffers of the model.
    companions = {f'ema_{n.replace(".", "_")}': n for n in weights}
    others = {companions[n]: v for n, v in weights.items() if n in companions}
    if others:
        weights = {n: v for n, v in weights.items() if n not in companions}
        others = {**weights, **others}
        is_average, places = True, ("names without 'ema_'", "names with 'ema_'")
    elif key == 'state_dict' and isinstance(checkpoint.get('ema_state_dict'), Mapping):
        others = _strip(checkpoint['ema_state_dict'])
        is_average, places = True, ("'state_dict'", "'ema_state_dict'")
    else:
        key_of_average = _find_average(checkpoint) if key else None
        if key_of_average is None:
            if averaged:
                raise WrongWeightsError('it holds no moving average (EMA) of weights')
            return weights, ''
        others = _strip(checkpoint[key_of_average])
        is_average, places = False, (f"'{key}'", f"'{key_of_average}'")

    if averaged is not None and averaged != is_average:
        # MMEngine counts the steps of the average beside its weights.
        weights = {name: v for name, v in others.items() if name in weights}
        is_average, places = averaged, places[::-1]
    words = ('moving average (EMA)', 'raw weights')
    mine, other = words if is_average else words[::-1]
    return weights, f'the {mine} of {places[0]}, not the {other} of {places[1]}'


def _find_weights(checkpoint: Any) -> tuple[str, Mapping]:
    """The weights in a checkpoint, and the key that they are under, '' for none.

    Raises:
        WrongWeightsError: There are none, or several that may be meant.
    """
    if not isinstance(checkpoint, Mapping):
        raise WrongWeightsError('it holds no weights')
    for key in ('state_dict', 'model'):
        if _holds_tensors(checkpoint.get(key)):
            return key, checkpoint[key]
    sets = {k: v for k, v in checkpoint.items() if _holds_tensors(v)}
    raw = {key: v for key, v in sets.items() if 'ema' not in str(key)} or sets
    known = [key for key in raw if find_backbones(shapes_of(_strip(raw[key])))]
    if not sets and _holds_tensors(checkpoint):
        return '', checkpoint
    keys = known or list(raw)
    if len(keys) > 1:
        raise WrongWeightsError(
            f'it holds weights under each of {", ".join(map(repr, keys))}: save those '
            'that are meant alone'
        )
    if keys:
        return keys[0], sets[keys[0]]
    for part in checkpoint.values():  # such as {'state': {'model': …}}
        if isinstance(part, Mapping):
            with suppress(WrongWeightsError):
                return '', _find_weights(part)[1]
    raise WrongWeightsError('it holds no weights')


def _find_average(checkpoint: Mapping) -> str | None:
    """Under which key a checkpoint has the moving average of other weights in it."""
    keys = (key for key, value in checkpoint.items() if _holds_tensors(value))
    return next((key for key in keys if 'ema' in str(key)), None)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(name, str) and isinstance(v, Tensor) for name, v in value.items()
    )


# What wrappers put into names: those for several GPUs before them, and torch.compile,
# activation checkpointing and FSDP before the part that they wrap.
_WRAPPERS = re.compile(
    r'^((module|_orig_mod)\.)+'
    r'|(?<![^.])(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.'
)


def _strip(weights: Mapping) -> dict[str, Any]:
    """Without what wrappers put into the names."""
    named = {n: v for n, v in weights.items() if isinstance(n, str)}
    return {_WRAPPERS.sub('', name): v for name, v in named.items()}


def shapes_of(weights: Mapping[str, Any]) -> Shapes:
    """Names and shapes of weights; what is no tensor has none, ``()``."""
    return {name: tuple(getattr(v, 'shape', ())) for name, v in weights.items()}


def _choose_root(roots: Iterable[str]) -> str | None:
    roots = list(roots)
    for root in (BACKBONE, ''):
        if root in roots:
            return root
    if len(roots) > 1:
        places = ' and '.join(repr(root) for root in sorted(roots))
        raise WrongWeightsError(f'it holds a backbone under each of {places}')
    return roots[0] if roots else None


def _rename_release(family: Family, name: str, value: Any) -> tuple[str, Any]:
    """A name of the released classifier or of a bare backbone, and its value.

    RAVLT's classifier ends in a 1×1 convolution, mmpretrain's in a linear layer with
    the same weights.
    """
    for pattern, ours in family.release_names:
        name = pattern.sub(ours, name)
    if name == 'head.fc.weight' and value.shape[2:] == (1, 1):
        value = value.flatten(1)
    return name, value


def _kind(names: Iterable[str]) -> str:
    parts = {name.split('.')[0] for name in names}
    if parts <= {'backbone'}:
        return 'backbone'
    if 'decode_head' in parts:
        return 'segmentor'
    if 'head' in parts:
        return 'classifier'
    return 'detector' if any(p.endswith('_head') for p in parts) else 'model'


def layout_of(checkpoint: Mapping) -> str:
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    for program in ('mmengine', 'mmcv', 'mmravlt'):
        version = meta.get(f'{program}_version')
        if version:
            program = {'mmengine': 'MMEngine'}.get(program, program)
            # MMEngine appends the commit of the folder that it was started in.
            version = re.sub(r'[0-9a-f]{40}$', '', str(version))
            return f'written by {program} {version}'
    if isinstance(checkpoint.get('model'), Mapping) and 'state_dict' not in checkpoint:
        return "in the release's layout"
    return 'a state dict'
