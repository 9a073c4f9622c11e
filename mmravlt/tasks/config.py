"""Datasets, heads and classes in configs, as all tasks change them."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import DataError

if TYPE_CHECKING:
    from mmengine.config import Config

# What stays of a dataset when the data behind it is replaced.
KEPT_OF_A_DATASET = (
    *('_scope_', 'pipeline', 'test_mode', 'indices', 'max_refetch'),
    *('serialize_data', 'lazy_init'),
)


def dicts(node) -> Iterator[dict]:
    """All dicts in a nest of dicts and lists."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from dicts(child)


def type_name(node) -> str:
    """The name of what a config dict builds, without its scope; else nothing."""
    kind = node.get('type', '') if isinstance(node, dict) else ''
    return str(getattr(kind, '__name__', kind)).split('.')[-1]


def innermost_dataset(dataset: dict) -> dict:
    """The dataset inside wrappers such as RepeatDataset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'datasets' in dataset:
        raise DataError(
            f'--data cannot replace the {len(dataset["datasets"])} datasets of a '
            f'{type_name(dataset)}; use a config with one.'
        )
    return dataset


def used_datasets(cfg: Config, training: bool) -> list[tuple[dict, str]]:
    """The datasets that are to get other data, each with 'train' or 'val'."""
    splits = dict(val_dataloader='val', test_dataloader='val')
    if training:
        splits['train_dataloader'] = 'train'
    found = {}
    for loader, split in splits.items():
        if cfg.get(loader):  # a config need not test
            dataset = innermost_dataset(cfg[loader].dataset)
            found[id(dataset)] = dataset, split  # loaders may share one
    return list(found.values())


def replace_dataset(dataset: dict, settings: dict) -> None:
    """Give a dataset another type and other data, in place; pipeline etc. stay."""
    kept = {key: dataset[key] for key in KEPT_OF_A_DATASET if key in dataset}
    dataset.clear()
    dataset.update(kept | settings)


def set_num_classes(cfg: Config, count: int) -> None:
    """Let every head of the model tell ``count`` classes apart.

    Args:
        cfg (Config): changed in place: each ``num_classes`` in ``cfg.model``,
            and the ``class_weight`` of losses where all classes weigh the same.
        count (int): number of classes.

    Raises:
        DataError: if nothing in the model has ``num_classes``, or if a loss
            weighs the classes of other data one by one.
    """
    heads = [node for node in dicts(cfg.model) if 'num_classes' in node]
    if not heads:
        raise DataError(
            f'--data: nothing in the {type_name(cfg.model)} of this config has '
            'num_classes, so it does not learn classes; use a config that does.'
        )
    for head in heads:
        old, head['num_classes'] = head['num_classes'], count
        set_class_weights(head, old, count)


def set_class_weights(head: dict, old: int, count: int) -> None:
    """Let the losses of a head weigh ``count`` classes, instead of ``old``, alike.

    Raises:
        DataError: if one weighs the classes of other data one by one.
    """
    for loss in dicts(head) if old != count else ():
        weights = loss.get('class_weight')
        if not isinstance(weights, (list, tuple)):
            continue
        if len(weights) not in (old, old + 1):  # a last one is of "no object"
            continue
        if len(set(weights[:old])) > 1:
            raise DataError(
                f'--data: the {type_name(loss)} of this config weighs its {old} '
                f'classes one by one, but the data has {count}; inherit the '
                'config and set class_weight=None there.'
            )
        loss['class_weight'] = [weights[0]] * count + list(weights[old:])


def keep_all_bits(cfg: Config, bit_depth: int | None, loaders: Iterable[str]) -> None:
    """Let all pipelines of a config read images with more than 8 bits per value.

    Each ``LoadImageFromFile`` keeps all bits, and is followed by a ``ScaleBitDepth``;
    the libraries' inferencers of detectors and segmentors keep both.

    Args:
        cfg (Config): changed in place.
        bit_depth (int | None): how many bits are in use. At 16, OpenCV's own way, and
            at None nothing changes.
        loaders (Iterable[str]): those that are used, such as 'train_dataloader'.

    Raises:
        DataError: if one of these loads images in another way.
    """
    if bit_depth in (None, 16):
        return
    for steps in _lists(list(cfg.values())):
        for i in reversed(range(len(steps))):
            if type_name(steps[i]) != 'LoadImageFromFile':
                continue
            if type_name((*steps, {})[i + 1]) == 'ScaleBitDepth':
                steps[i + 1]['bit_depth'] = bit_depth
                continue
            flag = _READING[steps[i].get('color_type', 'color')]
            steps[i]['color_type'] = flag
            steps[i].pop('imdecode_backend', None)  # that of OpenCV is the default
            scale = dict(type='ScaleBitDepth', bit_depth=bit_depth)
            if steps[i].pop('to_float32', False):
                scale['to_float32'] = True
            steps.insert(i + 1, scale)
    for loader in loaders:
        if not any(type_name(step) == 'ScaleBitDepth' for step in dicts(cfg[loader])):
            raise DataError(
                '--data has images with more than 8 bits per value, but the '
                f'{loader} of this config reads them by no LoadImageFromFile; give '
                '--bit-depth 16 to leave loading as it is.'
            )


# What LoadImageFromFile calls kinds of colour, and the flag of OpenCV with all bits
_READING = dict(
    color=3,  # IMREAD_COLOR | IMREAD_ANYDEPTH
    grayscale=2,  # IMREAD_GRAYSCALE | IMREAD_ANYDEPTH
    unchanged=-1,  # IMREAD_UNCHANGED
)


def bit_depth_of(cfg: Config) -> int | None:
    """Of the images that a config evaluates on, as :func:`keep_all_bits` set it."""
    for step in dicts(cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        if type_name(step) == 'ScaleBitDepth':
            return step['bit_depth']
    return None


def longest_side(cfg: Config, loaders: Iterable[str]) -> int | None:
    """The least number of pixels that a pipeline resizes the longer side to.

    Args:
        cfg (Config): with these loaders.
        loaders (Iterable[str]): such as 'train_dataloader'.

    Returns:
        int | None: None where no step keeps the shape of images.
    """
    found = []
    for step in dicts([cfg.get(loader) for loader in loaders]):
        resizes = type_name(step) in ('Resize', 'RandomResize', 'RandomChoiceResize')
        if not (resizes and step.get('keep_ratio')):
            continue
        scales = step.get('scales') or step.get('scale') or ()
        if scales and not isinstance(scales[0], (list, tuple)):
            scales = [scales]
        least = min(step.get('ratio_range') or (1,))
        found += [int(max(scale) * least) for scale in scales]
    return min(found, default=None)


def _lists(node) -> Iterator[list]:
    """All lists in a nest of dicts and lists."""
    if isinstance(node, list):
        yield node
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in tuple(node):
            yield from _lists(child)


def palette(count: int) -> list[tuple[int, int, int]]:
    """As many well-separated RGB colours (0–255) as asked for."""
    golden = 0.618  # steps by the golden ratio spread hues evenly for any count
    colours = (colorsys.hsv_to_rgb(i * golden % 1, 0.8, 1.0) for i in range(count))
    return [tuple(round(255 * c) for c in colour) for colour in colours]


def relative_path(path: str, root: Path) -> str:
    """A path as configs have it beside ``data_root``: from there, if it is below."""
    return os.path.relpath(path, root) if Path(path).is_relative_to(root) else path
