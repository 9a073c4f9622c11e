"""Images of a training as its pipeline makes them."""

from __future__ import annotations

import copy
import random
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from ..data.maps import IGNORED
from ..data.summary import spread
from ..pictures import draw_objects, outlines, replace_file, short, shrink, tinted
from ..tasks.config import dicts, type_name
from .base import ReportError, draw_panels

GREY = 127  # of padding, which the model gets as the mean of all images
HIDDEN = ('type', '_scope_')  # of a step
WORDS = 70  # characters of a step of a pipeline


def draw_preview(cfg: Config, count: int, path: Path) -> None:
    """Draw samples of the training data of a config, with their annotations.

    They are as random as in a training, but the same each time, and no random number
    of a later training depends on it.

    Args:
        cfg (Config): of any of the libraries, with ``train_dataloader``; unchanged.
        count (int): how many of them, spread over the data.
        path (Path): of the PNG file, whose folder must exist.

    Raises:
        ReportError: if a sample is not one image.
    """
    settings = copy.deepcopy(cfg.train_dataloader.dataset)
    scope = cfg.get('default_scope')
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    with DefaultScope.overwrite_default_scope(scope), _randomness(seed):
        dataset = inner = DATASETS.build(settings)
        while hasattr(inner, 'dataset'):  # the wrapped one may be shorter
            inner = inner.dataset
        number = min(len(dataset), len(inner))
        samples = [dataset[i] for i in spread(range(number), count)]
    classes = list((dataset.metainfo or {}).get('classes') or ())
    panels, used = [], set()
    for sample in samples:
        image, words = _image(sample, cfg)
        drawn, objects, indices, name = _annotated(sample, image, classes, cfg)
        used |= indices
        drawn, step = shrink(drawn)
        title = '\n'.join(part for part in (name, words) if part)
        panels.append((title, drawn, _drawer(objects, step)))
    title = f'{len(panels)} of {number} training images as the pipeline makes them'
    later = _batch_augmentation(cfg)
    if later:
        title += f'\n{" and ".join(later)} come later, in the model, and are not shown'
    steps = textwrap.fill(' → '.join(map(_words, _steps(settings))), 210)
    content = draw_panels(title, panels, 4, used, classes, steps)
    replace_file(path, content)


@contextmanager
def _randomness(seed: int) -> Iterator[None]:
    """Random numbers from a seed inside, and those of before after it."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _image(sample: dict, cfg: Config) -> tuple[np.ndarray, str]:
    """The image of a sample, H×W×3, RGB, uint8, and its size in words."""
    pixels = sample['inputs']
    if not (isinstance(pixels, torch.Tensor) and pixels.ndim == 3):
        raise ReportError(
            'a preview shows one image per sample, but the pipeline of this config '
            f'gives {type(pixels).__name__}s for each'
        )
    image = pixels.permute(1, 2, 0).numpy()
    image = image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]
    if _is_bgr(cfg):
        image = image[..., ::-1]
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 255 or high <= 1:  # normalised: any range becomes visible
            image = 255 * (image - low) / max(high - low, 1e-6)
        image = image.round().astype(np.uint8)
    height, width = image.shape[:2]
    words = f'{width}×{height} pixels'
    padded = _preprocessor(cfg).get('size')  # of a segmentor
    if padded and (padded[0] > height or padded[1] > width):
        words += f', padded to {padded[1]}×{padded[0]}'
        image = _pad(image, padded, GREY)
    return image, words


def _pad(pixels: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Pad to the right and below up to a height and width."""
    more = [
        (0, max(want - have, 0)) for want, have in zip(size, pixels.shape, strict=False)
    ]
    more += [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, more, constant_values=value)


def _annotated(
    sample: dict, image: np.ndarray, classes: list[str], cfg: Config
) -> tuple[np.ndarray, list[tuple], set[int], str]:
    """The image in colours of classes, its objects, the classes, and its title."""
    target = sample['data_samples']
    words = [short(Path(target.get('img_path') or '').name)]
    objects: list[tuple] = []
    used: set[int] = set()
    if 'gt_sem_seg' in target:
        part = target.gt_sem_seg
        label_map = (part.sem_seg if 'sem_seg' in part else part.data).squeeze().numpy()
        label_map = _pad(label_map, image.shape[:2], IGNORED)
        image = tinted(image, label_map)
        used |= set(np.unique(label_map).tolist()) - {IGNORED}
    if 'gt_instances' in target and 'bboxes' in target.gt_instances:
        found = target.gt_instances
        boxes = getattr(found.bboxes, 'tensor', found.bboxes).reshape(-1, 4).tolist()
        labels = found.labels.tolist()
        masks = found.masks.to_ndarray() if 'masks' in found else [None] * len(labels)
        for label, (x0, y0, x1, y1), mask in zip(labels, boxes, masks, strict=True):
            polygons = [] if mask is None else outlines(mask)
            name = [short(classes[label], 16)] if len(classes) > 1 else []
            objects.append((label, [x0, y0, x1 - x0, y1 - y0], polygons, *name))
        used |= set(labels)
    if 'gt_label' in target:
        labels = target.gt_label.tolist()
        known = [short(classes[i], 20) if i < len(classes) else str(i) for i in labels]
        words += known
    return image, objects, used, '\n'.join(word for word in words if word)


def _drawer(objects: list[tuple], step: int):
    return lambda axes: draw_objects(axes, objects, step)


def _preprocessor(cfg: Config) -> dict:
    found = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    return found if isinstance(found, dict) else {}


def _is_bgr(cfg: Config) -> bool:
    """Whether images come out of the pipeline as BGR, as OpenCV reads them."""
    preprocessor = _preprocessor(cfg)
    if preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'):
        return True
    steps = _steps(cfg.train_dataloader.dataset)
    if preprocessor.get('rgb_to_bgr') or any(step.get('to_rgb') for step in steps):
        return False
    return any(type_name(step).startswith('LoadImage') for step in steps)


def _batch_augmentation(cfg: Config) -> list[str]:
    """The names of what the model itself does to batches of images."""
    training = cfg.model.get('train_cfg')
    parts: list[Any] = [_preprocessor(cfg).get('batch_augments')]
    if isinstance(training, dict):
        parts.append(training.get('augments'))
    return [name for node in dicts(parts) if (name := type_name(node))]


def _steps(settings: dict) -> list[dict]:
    """The steps of a dataset's pipeline, and of those around it."""
    steps: list[dict] = []
    while settings:
        steps = [*(settings.get('pipeline') or ()), *steps]
        settings = settings.get('dataset') or (settings.get('datasets') or [None])[0]
    return steps


def _words(step: dict) -> str:
    """A step in a few words."""
    kept = {k: v for k, v in step.items() if k not in HIDDEN and v is not None}
    options = ', '.join(f'{k}={_value(v)}' for k, v in kept.items())
    if len(options) > WORDS:
        options = options[: WORDS - 1] + '…'
    return type_name(step) + (f'({options})' if options else '')


def _value(value: Any) -> str:
    return type_name(value) or repr(value).replace(' ', '')
