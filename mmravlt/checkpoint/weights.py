"""What a file's weights are, and which of them a model needs.

Four programs write the weights of one model in names of their own, here RAVLT's:

=================  ====================  ===================================
written by         weights stand under   names
=================  ====================  ===================================
the release, DeiT  ``model``             ``layers.…``, ``proj``, ``head``
mmcv 1.x           ``state_dict``        ``backbone.layers.…``, ``neck.…``
MMEngine           ``state_dict``        the same; heads of mmpretrain ``head.fc``
anyone             the top               any of these, maybe after ``module.``
=================  ====================  ===================================

Here they all get the names that MMEngine's models have, in which the backbone
stands under ``backbone.``; :func:`fit` then takes what a model expects. What
differs between the families of models is in :mod:`.families`.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
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
    shapes = _shapes(weights)
    roots = find_backbones(shapes)
    root = _choose_root(roots)
    # What a training wraps around the model, as in student.backbone.layers
    is_whole = root is not None and f'.{root}'.endswith(f'.{BACKBONE}')
    container = (root.removesuffix(BACKBONE) if is_whole else root) or ''
    renamed, sources = {}, {}
    for name, value in weights.items():
        own = name.removeprefix(container)
        if root is not None and not is_whole:
            family = FAMILIES[roots[root].family]
            own, value = _rename_release(family, own, value)
        renamed[own], sources[own] = value, name
    meta = checkpoint.get('meta')
    return Contents(
        renamed,
        sources,
        roots.get(root),
        _kind(renamed),
        _layout(checkpoint),
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
        The weights by the names in the file, without ``module.``; and where the
        file holds a moving average too, which of the two they are, in words.

    Raises:
        WrongWeightsError: It holds no weights, or no average although one is
            wanted.
    """
    key = None
    if isinstance(checkpoint, Mapping):
        keys = ('state_dict', 'model')
        key = next((k for k in keys if isinstance(checkpoint.get(k), Mapping)), None)
    weights = _strip(checkpoint if key is None else checkpoint[key])
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise WrongWeightsError('it holds no weights')

    # MMCV 1.x keeps the other set as buffers of the model.
    companions = {f'ema_{n.replace(".", "_")}': n for n in weights}
    others = {companions[n]: v for n, v in weights.items() if n in companions}
    if others:
        weights = {n: v for n, v in weights.items() if n not in companions}
        others = {**weights, **others}
        is_average, places = True, ("names without 'ema_'", "names with 'ema_'")
    elif isinstance(checkpoint.get('ema_state_dict'), Mapping):
        others = _strip(checkpoint['ema_state_dict'])
        is_average, places = True, ("'state_dict'", "'ema_state_dict'")
    else:
        key_of_average = {'model': 'model_ema', 'state_dict': 'state_dict_ema'}.get(key)
        if not isinstance(checkpoint.get(key_of_average), Mapping):
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


def _strip(weights: Any) -> dict[str, Any]:
    """Without the ``module.`` that a wrapper for several GPUs puts before names."""
    if not isinstance(weights, Mapping):
        return {}
    named = {n: v for n, v in weights.items() if isinstance(n, str)}
    return {re.sub(r'^(module\.)+', '', name): v for name, v in named.items()}


def _shapes(weights: Mapping[str, Any]) -> Shapes:
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


def _layout(checkpoint: Mapping) -> str:
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


@dataclass
class Report:
    """What became of a file's weights; ``str()`` says it, in a few lines.

    Attributes:
        contents: What the file holds.
        file: What to call it.
        loaded: Names of the model that got the file's weights.
        new: Names of the model that the file does not have.
        changed: Names of the model that the file has in another shape ->
            (shape in the file, shape in the model).
        without_gate: Names of the model, among those loaded, whose convolution has a
            gate in the file, the rows of which are not used.
        unused: Names in the file that the model has no place for.
        used: All other names in the file.
        is_part: The model is a part of what the file is for, or the reverse, so
            that unused names are no surprise.
    """

    contents: Contents
    file: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    changed: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    without_gate: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    is_part: bool = False

    @property
    def output_norms(self) -> list[str]:
        """Output norms that no classifier has, and so a detector trains anew."""
        size = self.contents.size
        if size is None:
            return []
        pattern = FAMILIES[size.family].output_norms

        def is_norm(name: str) -> bool:
            return pattern.match(name.removeprefix(BACKBONE)) is not None

        held = any(map(is_norm, self.contents.weights))
        return [] if held else list(filter(is_norm, self.new))

    @property
    def lacking(self) -> str:
        """The model's names that got no weights, shortened to their parts."""
        return _in_groups([*self.new, *self.changed], self.loaded)

    @property
    def level(self) -> int:
        """INFO where all is as expected, else WARNING."""
        is_odd = self.changed or self.without_gate
        if len(self.new) > len(self.output_norms):
            is_odd = True
        if self.unused and not self.is_part:
            is_odd = True
        return logging.WARNING if is_odd else logging.INFO

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.new) + len(self.changed)
        lines = [
            f'{self.file} ({self.contents}): '
            f'loaded {len(self.loaded)} of the {total} weights of this model'
        ]
        norms = self.output_norms
        if norms:
            lines.append(
                f'  new, as expected: {_in_groups(norms, self.loaded)}, the output '
                f'norms that a classifier does not have'
            )
        other = [name for name in self.new if name not in norms]
        if other:
            lines.append(f'  new, not in the file: {_in_groups(other, self.loaded)}')
        if self.changed:
            lines.append('  new, of another shape in the file:')
        for name, (theirs, ours) in islice(self.changed.items(), 60):
            lines.append(
                f'    {name}: {_times(theirs)} in the file, {_times(ours)} here'
            )
        if len(self.changed) > 60:
            lines.append(f'    and {len(self.changed) - 60} more')
        if self.without_gate:
            lines.append(
                f"  not used of the file: the gate's rows of {len(self.without_gate)} "
                'weights attn.qkvo, which are attn.qkv here'
            )
        if self.unused:
            groups = _in_groups(self.unused, self.used)
            lines.append(f'  not used of the file: {groups}')
        return '\n'.join(lines)


def _times(shape: tuple[int, ...]) -> str:
    return '×'.join(map(str, shape)) or 'one number'


def _in_groups(names: Iterable[str], others: Iterable[str]) -> str:
    """Names, shortened to the longest parts of which no name is among others."""
    shared = {part for name in others for part in _parts(name)}
    groups = Counter(
        next((p for p in _parts(name) if p not in shared), name) for name in names
    )
    shown = [f'{group} ({n})' for group, n in islice(groups.items(), 20)]
    more = [f'and {len(groups) - 20} more'] if len(groups) > 20 else []
    return ', '.join(shown + more)


def _parts(name: str) -> Iterator[str]:
    """For a.b.c: a, a.b, a.b.c."""
    words = name.split('.')
    return ('.'.join(words[: i + 1]) for i in range(len(words)))


def fit(
    contents: Contents, expected: Shapes, file: str = 'the file'
) -> tuple[dict[str, Tensor], Report]:
    """Choose what a model needs of the weights of a file, and name it as it does.

    Args:
        contents: What the file holds.
        expected: Names and shapes of the model's weights: of a backbone, or of a
            model that has one under ``backbone.``.
        file: What to call the file in sentences.

    Returns:
        The weights whose names and shapes the model has, and for its stages the
        ``RoPE.angle`` that the file may hold; and the report. Where the model has no
        weights for the gate of attention, and so ``qkv`` instead of the release's
        ``qkvo``, it gets the rows of queries, keys and values.

    Raises:
        WrongWeightsError: The weights belong to a backbone of another size or
            family, or to another model.
    """
    roots = find_backbones(expected)
    is_bare = '' in roots
    size = roots['' if is_bare else BACKBONE]
    prefix = BACKBONE if is_bare else ''
    if contents.size is None:
        # Heads alone may be loaded; another backbone's names may be alike.
        if is_bare or any(name.startswith(BACKBONE) for name in contents.weights):
            raise _foreign(contents, size, file)
    elif not contents.size.fits(size):
        raise WrongWeightsError(
            f'the weights of {file} are of {contents.size}, but this model is {size}: '
            f'give it weights of {size}, or build a model of {contents.size}'
        )

    report = Report(contents, file, is_part=is_bare or contents.kind == 'backbone')
    result, with_gate = {}, set()
    for name, shape in expected.items():
        value = contents.weights.get(prefix + name)
        gated = re.sub(r'(?<=\.attn\.)qkv(?=\.)', 'qkvo', prefix + name)
        if value is None and gated in contents.weights:
            value = contents.weights[gated]
            if tuple(value.shape) == (shape[0] // 3 * 4, *shape[1:]):
                value = value[: shape[0]]
                report.without_gate.append(name)
            with_gate.add(gated)
        is_counter = name.endswith('num_batches_tracked')  # absent in old files
        if value is None:
            if not is_counter:
                report.new.append(name)
        elif tuple(value.shape) != tuple(shape):
            report.changed[name] = tuple(value.shape), tuple(shape)
        else:
            result[name] = value
            if not is_counter:
                report.loaded.append(name)
    if not report.loaded:
        raise _foreign(contents, size, file)
    stages = {part for name in expected for part in _parts(name)}
    for name, source in contents.sources.items():
        own = name.removeprefix(prefix)
        if name in with_gate or (name.startswith(prefix) and own in expected):
            report.used.append(source)
        elif name.startswith(prefix) and _stage_of_angle(own) in stages:
            report.used.append(source)
            result[own] = contents.weights[name]
        else:
            report.unused.append(source)
    return result, report


def _stage_of_angle(name: str) -> str | None:
    """The stage whose RoPE frequencies, which a model derives, a name holds."""
    return name.removesuffix('.RoPE.angle') if name.endswith('.RoPE.angle') else None


def _foreign(contents: Contents, size: Size, file: str) -> WrongWeightsError:
    parts = dict.fromkeys(name.split('.')[0] for name in contents.weights)
    begin = ', '.join(islice(parts, 4)) + (', …' if len(parts) > 4 else '')
    return WrongWeightsError(
        f'there is nothing in {file} for this {size} model (its names begin with '
        f'{begin}), so nothing was loaded: give it weights of {size}'
    )
