"""Semantic segmentation, with mmseg: folders of images and maps of class indices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data import DataError, DataOptions, Prepared
from ..data.accepted import ACCEPTED
from ..data.segmentation import prepare_maps
from .base import Prediction, Task, sample_meta
from .config import (
    bit_depth_of,
    dicts,
    palette,
    replace_dataset,
    set_num_classes,
    type_name,
    used_datasets,
)

if TYPE_CHECKING:
    from mmengine.config import Config

# Loading steps that need more than an image and a PNG map, by how they start
OTHER_LOADING = ('LoadDepth', 'LoadBiomedical', 'LoadMultipleRS', 'MultiImgLoad')

# By its path, as importing it would import mmseg
DATASET = 'mmravlt.openmmlab.listed_maps.ListedMaps'

# Metrics that read the files of one dataset or score something else
OTHER_METRICS = ('CityscapesMetric', 'DepthMetric')


def use_segmentation_data(cfg: Config, root: Path, options: DataOptions) -> Prepared:
    """Make the config of a segmentor use images and maps of class indices.

    Args:
        cfg (Config): changed in place.
        root (Path): in a layout of :mod:`mmravlt.data.segmentation`.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: what was found.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    datasets = used_datasets(cfg, 'train' in options.splits)
    for step in dicts([dataset for dataset, _ in datasets]):
        if type_name(step).startswith(OTHER_LOADING):
            raise DataError(
                '--data gives one image and one map of classes at a time, but the '
                f'pipeline of this config has {type_name(step)}; use another config.'
            )
    data = prepare_maps(root, options)
    classes = tuple(data.classes)
    metainfo = dict(classes=classes, palette=palette(len(classes)))
    if data.layout == 'ADE20K':
        metainfo = _ade20k_metainfo()
    _set_num_classes(cfg, len(metainfo['classes']))
    for dataset, split in datasets:
        _use_split(dataset, root, data.splits[split], metainfo)
    for key in ('val_evaluator', 'test_evaluator'):
        evaluator = cfg.get(key) or []
        metrics = evaluator if isinstance(evaluator, list) else [evaluator]
        kept = [m for m in metrics if type_name(m) not in OTHER_METRICS]
        if len(kept) < len(metrics):
            cfg[key] = kept or dict(type='IoUMetric', iou_metrics=['mIoU'])
    return data


def _use_split(dataset: dict, root: Path, split: dict, metainfo: dict) -> None:
    """Make a dataset read one split."""
    for step in dicts(dataset):
        if type_name(step) == 'LoadAnnotations':
            # Without these keys the dataset decides on the former, and the map is
            # read by Pillow, which gives the indices of a PNG with a palette.
            step.pop('reduce_zero_label', None)
            step.pop('imdecode_backend', None)
    replace_dataset(
        dataset,
        dict(
            type=DATASET,
            metainfo=metainfo,
            data_root=str(root),
            ann_file=split['ann_file'],
            reduce_zero_label=split['zero_ignored'],
        ),
    )


def _ade20k_metainfo() -> dict:
    """The names and colours that mmseg has for the classes of ADE20K."""
    from mmseg.datasets import ADE20KDataset

    return dict(ADE20KDataset.METAINFO)


def _set_num_classes(cfg: Config, count: int) -> None:
    """Set the class counts of all heads but those that find edges."""
    heads = [head for head in dicts(cfg.model) if 'num_classes' in head]
    edges = [(h, h['num_classes']) for h in heads if type_name(h) == 'STDCHead']
    for head in heads:
        if head.get('out_channels') == 1 and count != 2:
            raise DataError(
                f'--data: the {type_name(head)} of this config tells two classes by '
                f'one channel (out_channels=1), but the data names {count}; '
                'inherit the config and set out_channels=None there.'
            )
    set_num_classes(cfg, count)
    for head, num_classes in edges:
        head['num_classes'] = num_classes


def build_inferencer(cfg: Config, device: str):
    """mmseg's inferencer."""
    from mmseg.apis import MMSegInferencer

    from ..openmmlab.drawing import draw_small

    inferencer = MMSegInferencer(cfg, device=device)
    draw_small(inferencer.visualizer)
    return inferencer


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
    from ..openmmlab.drawing import draw_each_image

    draw_each_image(cfg, folder, bit_depth_of(cfg), draw=True, interval=1)


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


def report() -> type:
    """What collects tables and pictures of an evaluation."""
    from ..reports.segmentation import SegmentationReport

    return SegmentationReport


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
    layout=ACCEPTED['semantic segmentation'],
    use_data=use_segmentation_data,
    build_inferencer=build_inferencer,
    predict=predict,
    draw_tests=draw_tests,
    dump_metric=dump_metric,
    report=report,
    score=lambda cfg: 'mIoU',
    image_size=(512, 2048),
    heads=dict(EncoderDecoder=run_heads),
    sample=make_sample,
)
