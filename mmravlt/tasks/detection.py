"""Detection and instance segmentation, with mmdet: COCO-style folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..data import DataError, DataOptions, Prepared
from ..data.accepted import ACCEPTED
from ..data.detection import prepare_objects
from .base import Prediction, Task, TaskError, sample_meta
from .coco import use_coco
from .config import bit_depth_of, dicts, set_num_classes

if TYPE_CHECKING:
    from mmengine.config import Config

NUM_PROPOSALS = 1000  # for each box head whose costs are counted
NUM_MASKS = 100  # for each mask head


def use_detection_data(cfg: Config, root: Path, options: DataOptions) -> Prepared:
    """Make the config of a detector use the objects in a folder.

    Args:
        cfg (Config): changed in place.
        root (Path): in one of the layouts of :mod:`mmravlt.data.detection`.
        options (DataOptions): what is needed of it; the config decides on masks.

    Returns:
        Prepared: what was found.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    for node in dicts(cfg.model):
        if 'num_things_classes' in node:
            raise DataError(
                f'--data does not know panoptic heads such as {node.get("type")}, '
                'which count things and stuff; set their class counts in a config.'
            )
    training = 'train' in options.splits
    used = ('train_dataloader', 'val_dataloader') if training else ('test_dataloader',)
    steps = dicts([cfg[loader] for loader in used])
    needs_masks = any(step.get('with_mask') for step in steps)
    data = prepare_objects(root, replace(options, masks=needs_masks))
    metric = dict(
        type='CocoMetric', metric=['bbox', 'segm'] if needs_masks else ['bbox']
    )
    use_coco(cfg, root, training, data, 'CocoDataset', metric)
    set_num_classes(cfg, len(data.classes))
    return data


def build_inferencer(cfg: Config, device: str):
    """mmdet's inferencer."""
    from mmdet.apis import DetInferencer

    from ..openmmlab.drawing import draw_small

    inferencer = DetInferencer(cfg, device=device)
    draw_small(inferencer.visualizer)
    return inferencer


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The objects in an image: labels, classes, scores, boxes and masks."""
    done = inferencer(str(image), return_vis=True, pred_score_thr=score_thr)
    (found,), (drawing,) = done['predictions'], done['visualization']
    found['classes'] = [inferencer.classes[label] for label in found['labels']]
    return Prediction(found, drawing)


def draw_tests(cfg: Config, folder: str) -> None:
    """Let mmdet's visualisation hook draw into a folder."""
    from ..openmmlab.drawing import draw_each_image

    draw_each_image(cfg, folder, bit_depth_of(cfg), draw=True, test_out_dir=None)


def dump_metric() -> type:
    """mmdet's own kind of dump, which writes masks run-length encoded."""
    from mmdet.evaluation import DumpDetResults

    return DumpDetResults


def score(cfg: Config) -> str:
    """The AP of masks, if the model learns them, else of boxes."""
    has_masks = any('mask_head' in node for node in dicts(cfg.model))
    return 'coco/segm_mAP' if has_masks else 'coco/bbox_mAP'


def report() -> type:
    """What collects tables and pictures of an evaluation."""
    from ..reports.detection import DetectionReport

    return DetectionReport


def run_single_stage(meter, features: tuple[Tensor, ...]) -> None:
    """The one head of a single-stage detector."""
    meter.run('bbox_head', features)


def run_two_stage(meter, features: tuple[Tensor, ...]) -> None:
    """RPN and RoI heads, these on features of the shape that RoIAlign gives."""
    model = meter.model
    if model.with_rpn:
        meter.run('rpn_head', features)
    roi_head = model.roi_head
    if type(roi_head).__name__ not in ('StandardRoIHead', 'CascadeRoIHead'):
        raise TaskError(
            f'the RoI head is a {type(roi_head).__name__}; StandardRoIHead and '
            'CascadeRoIHead are counted here.'
        )
    for kind, number in (('bbox', NUM_PROPOSALS), ('mask', NUM_MASKS)):
        if not getattr(roi_head, f'with_{kind}'):
            continue
        heads = getattr(roi_head, f'{kind}_head')
        extractors = getattr(roi_head, f'{kind}_roi_extractor')
        path = f'roi_head.{kind}_head'
        if isinstance(heads, nn.ModuleList):
            names = [f'{path}.{i}' for i in range(len(heads))]
        else:
            names, extractors = [path], [extractors]
        for name, extractor in zip(names, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            regions = torch.empty(number, extractor.out_channels, *size)
            if roi_head.with_shared_head:
                regions = meter.run('roi_head.shared_head', regions)
            meter.run(name, regions)


def make_sample(size: tuple[int, int]):
    """A data sample with four objects, each a filled box."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = size
    sample = DetDataSample(metainfo=sample_meta(size))
    corners = [(0.05 + 0.2 * i, 0.1 * i) for i in range(4)]
    boxes = torch.tensor(
        [[x * width, y * height, (x + 0.3) * width, (y + 0.5) * height]
         for x, y in corners]
    )  # fmt: skip
    boxes[:, ::2].clamp_(max=width)
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(len(boxes)),
        masks=BitmapMasks(masks, height, width),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    return sample


DETECTION = Task(
    name='detection and instance segmentation',
    package='mmdet',
    distributions=('mmdet', 'onedl-mmdetection'),
    layout=ACCEPTED['detection and instance segmentation'],
    use_data=use_detection_data,
    build_inferencer=build_inferencer,
    predict=predict,
    draw_tests=draw_tests,
    dump_metric=dump_metric,
    report=report,
    score=score,
    image_size=(800, 1280),
    heads=dict(
        SingleStageDetector=run_single_stage,
        TwoStageDetector=run_two_stage,
    ),
    sample=make_sample,
)
