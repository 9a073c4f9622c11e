"""Semantic segmentation, with mmseg: folders of images and maps of class indices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import DataError, Prediction, Task, sample_meta
from .config import (
    dicts,
    palette,
    replace_dataset,
    set_num_classes,
    type_name,
    used_datasets,
)
from .files import (
    IMAGE_SUFFIXES,
    check_files,
    image_size,
    is_first_process,
    list_files,
    need_folder,
    unreadable,
)

if TYPE_CHECKING:
    from mmengine.config import Config

IGNORED = 255  # what mmseg takes for pixels of no class

# Loading steps that need more than an image and a PNG map, by how they start
OTHER_LOADING = ('LoadDepth', 'LoadBiomedical', 'LoadMultipleRS', 'MultiImgLoad')

# Metrics that read the files of one dataset or score something else
OTHER_METRICS = ('CityscapesMetric', 'DepthMetric')


@dataclass
class Layout:
    """How a folder names its splits and what the values in its maps mean.

    Attributes:
        train (str): name of the training split's folders.
        val (str): name of the validation split's folders.
        classes (range): values of pixels that belong to a class.
        ignored (tuple[int]): values of pixels that belong to none.
        image_suffixes (tuple[str]): in lower case.
    """

    train: str
    val: str
    classes: range
    ignored: tuple[int, ...]
    image_suffixes: tuple[str, ...]


ADE20K = Layout('training', 'validation', range(1, 151), (0, IGNORED), ('.jpg',))


def use_segmentation_data(cfg: Config, root: Path, training: bool) -> None:
    """Make the config of a segmentor use images and maps of class indices.

    Args:
        cfg (Config): changed in place.
        root (Path): holds ``images/{train,val}``, ``annotations/{train,val}``
            with one PNG per image, of the same name up to the suffix, whose
            pixels are class indices or 255 (ignored), and ``classes.txt`` with
            one class name per line. With a config for ADE20K also ADE20K as it
            is distributed: ``images/{training,validation}`` and
            ``annotations/{training,validation}``, values 0 (other) to 150.
        training (bool): whether the training split must be there.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    datasets = used_datasets(cfg, training)
    for step in dicts([dataset for dataset, _ in datasets]):
        if type_name(step).startswith(OTHER_LOADING):
            raise DataError(
                '--data gives one image and one map of classes at a time, but the '
                f'pipeline of this config has {type_name(step)}; use another config.'
            )
    if not (root / 'classes.txt').exists() and (root / 'images/validation').is_dir():
        _use_ade20k(root, datasets)
        return
    need_folder(root / 'images')
    classes = read_classes(root / 'classes.txt')
    layout = Layout('train', 'val', range(len(classes)), (IGNORED,), IMAGE_SUFFIXES)
    suffixes = {
        split: check_split(root, split, layout)
        for split in sorted({split for _, split in datasets})
    }
    _set_num_classes(cfg, len(classes))
    metainfo = dict(classes=classes, palette=palette(len(classes)))
    for dataset, split in datasets:
        _use_split(dataset, root, split, suffixes[split], metainfo)
    for key in ('val_evaluator', 'test_evaluator'):
        evaluator = cfg.get(key) or []
        metrics = evaluator if isinstance(evaluator, list) else [evaluator]
        kept = [m for m in metrics if type_name(m) not in OTHER_METRICS]
        if len(kept) < len(metrics):
            cfg[key] = kept or dict(type='IoUMetric', iou_metrics=['mIoU'])


def _use_split(
    dataset: dict, root: Path, split: str, suffixes: list[str], metainfo: dict
) -> None:
    """Make a dataset read one split; a BaseSegDataset knows only one suffix."""
    for step in dicts(dataset):
        if type_name(step) == 'LoadAnnotations':
            # Without these keys the dataset decides on the former, and the map is
            # read by Pillow, which gives the indices of a PNG with a palette.
            step.pop('reduce_zero_label', None)
            step.pop('imdecode_backend', None)
    replace_dataset(
        dataset,
        dict(
            type='BaseSegDataset',
            metainfo=metainfo,
            data_root=str(root),
            data_prefix=dict(
                img_path=f'images/{split}', seg_map_path=f'annotations/{split}'
            ),
            img_suffix=suffixes[0],
            seg_map_suffix='.png',
            reduce_zero_label=False,
        ),
    )
    if len(suffixes) > 1:
        parts = [{**dataset, 'img_suffix': suffix} for suffix in suffixes]
        dataset.clear()
        dataset.update(type='ConcatDataset', datasets=parts)


def _use_ade20k(root: Path, datasets: list[tuple[dict, str]]) -> None:
    """Point the datasets of a config for ADE20K at a copy of ADE20K."""
    for dataset, _ in datasets:
        if type_name(dataset) != 'ADE20KDataset':
            raise DataError(
                f"{root} has ADE20K's own layout (images/validation, no classes.txt), "
                'which needs a config for ADE20K, but this one is for '
                f'{type_name(dataset)}; for data of your own, name the folders train '
                'and val and write one class name per line into classes.txt.'
            )
    for split in sorted({split for _, split in datasets}):
        check_split(root, getattr(ADE20K, split), ADE20K)
    for dataset, split in datasets:
        name = getattr(ADE20K, split)
        dataset.update(
            data_root=str(root),
            data_prefix=dict(
                img_path=f'images/{name}', seg_map_path=f'annotations/{name}'
            ),
        )


def _set_num_classes(cfg: Config, count: int) -> None:
    """Set the class counts of all heads but those that find edges."""
    heads = [head for head in dicts(cfg.model) if 'num_classes' in head]
    edges = [(h, h['num_classes']) for h in heads if type_name(h) == 'STDCHead']
    for head in heads:
        if head.get('out_channels') == 1 and count != 2:
            raise DataError(
                f'--data: the {type_name(head)} of this config tells two classes by '
                f'one channel (out_channels=1), but classes.txt names {count}; '
                'inherit the config and set out_channels=None there.'
            )
    set_num_classes(cfg, count)
    for head, num_classes in edges:
        head['num_classes'] = num_classes


def read_classes(path: Path) -> tuple[str, ...]:
    """Read one class name per line.

    Raises:
        DataError: if the file is missing, is no text, or names fewer than two
            classes, one of them twice, or none on a line before the last.
    """
    if not path.is_file():
        raise DataError(
            f'{path} is missing; write one class name per line into it, in the order '
            'of the class indices.'
        )
    try:
        lines = path.read_text(encoding='utf-8-sig').rstrip().splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f'{path} cannot be read as UTF-8 text: {error}.') from None
    names = [line.strip() for line in lines]
    for i, name in enumerate(names):
        if not name:
            raise DataError(
                f'{path}: line {i + 1} is blank, but stands for the class with index '
                f'{i}; name it or take the line out.'
            )
        if name in names[:i]:
            raise DataError(
                f'{path} names {name!r} twice, on lines {names.index(name) + 1} and '
                f'{i + 1}; each class needs a name of its own.'
            )
    if not 2 <= len(names) <= IGNORED:
        raise DataError(
            f'{path} names {len(names)} classes; a segmentor tells 2 to {IGNORED} '
            "classes apart (what is no object is a class too, such as 'background')."
        )
    return tuple(names)


def check_split(root: Path, split: str, layout: Layout) -> list[str]:
    """Check the images and the maps of one split.

    Args:
        root (Path): the folder that holds ``images`` and ``annotations``.
        split (str): name of a folder in both.
        layout (Layout): what is expected of them.

    Returns:
        list[str]: the suffixes that the images have, as written.

    Raises:
        DataError: names the first file that is not as it should be.
    """
    image_dir, map_dir = root / 'images' / split, root / 'annotations' / split
    need_folder(image_dir)
    need_folder(map_dir)
    images: dict[str, str] = {}  # by the name of the map that belongs to it
    for image in list_files(image_dir, layout.image_suffixes):
        name = str(PurePosixPath(image).with_suffix('.png'))
        if name in images:
            raise DataError(
                f'{image_dir} has both {images[name]} and {image}, which share the map '
                f'{name}; rename one of them.'
            )
        images[name] = image
    if not images:
        raise DataError(
            f'{image_dir} has no images ({", ".join(layout.image_suffixes)}).'
        )
    maps = list_files(map_dir, ('.png',))
    without_map = sorted(images.keys() - set(maps))
    if without_map:
        raise DataError(
            f'{len(without_map)} of {len(images)} images in {image_dir}, such as '
            f'{images[without_map[0]]}, have no map in {map_dir} (there it would be '
            f'{without_map[0]}); add the maps or remove the images.'
        )
    without_image = sorted(set(maps) - images.keys())
    if without_image:
        raise DataError(
            f'{len(without_image)} of {len(maps)} maps in {map_dir}, such as '
            f'{without_image[0]}, have no image in {image_dir}; add the images or '
            'remove the maps.'
        )
    if is_first_process():
        pairs = [(image_dir / images[name], map_dir / name) for name in maps]
        values = check_files(
            lambda pair: _check_pair(*pair, layout), pairs, f'maps in {map_dir}'
        )
        labelled = set().union(*values) - set(layout.ignored)
        if len(labelled) < (2 if split == layout.train else 1):
            held = f'only class {min(labelled)}' if labelled else 'no class at all'
            raise DataError(
                f'The maps in {map_dir} hold {held} besides ignored pixels, so nothing '
                f'can be learnt or scored; {IGNORED} means ignored, so a mask of 0 and '
                '255 has to be saved as 0 and 1.'
            )
    return sorted({PurePosixPath(image).suffix for image in images.values()})


def _check_pair(image: Path, label_map: Path, layout: Layout) -> set[int]:
    """Check one image and its map; return the values in the map."""
    width, height = image_size(image)
    try:
        with Image.open(label_map) as opened:
            mode, size = opened.mode, opened.size
            # counts of 0 to 255; what they stand for in mode 'P' is left aside
            counts = opened.histogram() if mode in ('L', 'P') else None
            pixels = None if counts else np.array(opened)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(label_map, error) from None
    if counts is None and pixels.ndim != 2:
        raise DataError(
            f'{label_map} is an image in colour ({mode}); save one channel that holds '
            'the class indices.'
        )
    if size != (width, height):
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels, but its image {image} is '
            f'{width}×{height}; a map needs the size of its image.'
        )
    if min(size) < 2:
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels; mmseg needs at least 2×2, so '
            'remove the map and its image.'
        )
    found = np.flatnonzero(counts) if counts else np.unique(pixels)
    values = {int(value) for value in found}
    unknown = values - set(layout.classes) - set(layout.ignored)
    if unknown:
        raise DataError(
            f'{label_map} holds the value {min(unknown)}, but the classes are '
            f'{layout.classes[0]} to {layout.classes[-1]} and '
            f'{" and ".join(map(str, layout.ignored))} ignored; correct the map, or '
            'add a class to classes.txt if it lacks one.'
        )
    return values


def build_inferencer(cfg: Config, device: str):
    """mmseg's inferencer."""
    from mmseg.apis import MMSegInferencer

    return MMSegInferencer(cfg, device=device)


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The class of each pixel, and each class's share of the image."""
    names = inferencer.classes
    done = inferencer(str(image), return_vis=True)
    class_map = done['predictions']
    labels, counts = np.unique(class_map, return_counts=True)
    found = dict(labels=labels.tolist(), shares=(counts / counts.sum()).tolist())
    found['classes'] = [names[label] for label in labels]
    kind = np.uint8 if len(names) <= 256 else np.uint16
    return Prediction(found, done['visualization'], class_map.astype(kind))


def draw_tests(cfg: Config, folder: str) -> None:
    """Let mmseg's visualisation hook draw into a folder."""
    cfg.default_hooks.visualization.update(draw=True, interval=1)
    cfg.visualizer.save_dir = folder


def dump_metric() -> type:
    """A dump of class maps without the scores of all classes, 100 times their size."""
    from mmengine.evaluator import DumpResults

    class DumpSegResults(DumpResults):
        def process(self, data_batch: dict, predictions: list[dict]) -> None:
            kept = [
                {key: value for key, value in sample.items() if key != 'seg_logits'}
                for sample in predictions
            ]
            super().process(data_batch, kept)

    return DumpSegResults


def run_heads(meter, features: tuple[Tensor, ...]) -> None:
    """The decode head of a segmentor; an auxiliary one runs in training only."""
    meter.run('decode_head', features)
    if meter.model.with_auxiliary_head:
        meter.skip('auxiliary_head')


def make_sample(size: tuple[int, int]):
    """A data sample with two classes, left and right."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[..., size[1] // 2 :] = 1
    sample = SegDataSample(metainfo=sample_meta(size))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


SEGMENTATION = Task(
    name='semantic segmentation',
    package='mmseg',
    distributions=('mmsegmentation', 'onedl-mmsegmentation'),
    layout='images/{train,val}, annotations/{train,val} (PNGs of class indices, 255 '
    'is ignored) and classes.txt (a name per line), or a copy of ADE20K',
    use_data=use_segmentation_data,
    build_inferencer=build_inferencer,
    predict=predict,
    draw_tests=draw_tests,
    dump_metric=dump_metric,
    image_size=(512, 2048),
    heads=dict(EncoderDecoder=run_heads),
    sample=make_sample,
)
