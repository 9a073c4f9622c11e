"""Detection and instance segmentation, with mmdet: COCO-style folders."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .base import DataError, Prediction, Task, TaskError, sample_meta
from .coco import (
    CATEGORIES,
    IMAGES,
    CocoSplit,
    find_annotations,
    find_image_dir,
    read_tables,
    use_coco,
)
from .config import dicts, set_num_classes

if TYPE_CHECKING:
    from mmengine.config import Config

NUM_PROPOSALS = 1000  # for each box head whose costs are counted
NUM_MASKS = 100  # for each mask head

OBJECTS = dict(
    id=int | str,
    image_id=int | str,
    category_id=int | str,
    bbox=list,
    area=Real,
    iscrowd=int,
)


def use_detection_data(cfg: Config, root: Path, training: bool) -> None:
    """Make the config of a detector use a COCO-style folder.

    Args:
        cfg (Config): changed in place.
        root (Path): holds ``annotations/instances_{train,val}*.json`` and, beside
            ``annotations``, the folders of images.
        training (bool): whether the training split must be there.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    for node in dicts(cfg.model):
        if 'num_things_classes' in node:
            raise DataError(
                f'--data does not know panoptic heads such as {node.get("type")}, '
                'which count things and stuff; set their class counts in a config.'
            )
    used = ('train_dataloader', 'val_dataloader') if training else ('test_dataloader',)
    steps = dicts([cfg[loader] for loader in used])
    needs_masks = any(step.get('with_mask') for step in steps)
    val = use_coco(
        cfg,
        root,
        training,
        lambda root, split: read_split(root, split, needs_masks),
        'CocoDataset',
        dict(type='CocoMetric', metric=['bbox', 'segm'] if needs_masks else ['bbox']),
    )
    set_num_classes(cfg, len(val.metainfo['classes']))


def read_split(root: Path, split: str, needs_masks: bool) -> CocoSplit:
    """Find and check one split of a COCO-style folder.

    Args:
        root (Path): the folder that holds ``annotations``.
        split (str): 'train' or 'val'.
        needs_masks (bool): whether each object must have a segmentation.

    Returns:
        CocoSplit: what was found.

    Raises:
        DataError: says what was looked for and where.
    """
    ann_file = find_annotations(root, 'instances', split)
    layout = dict(images=IMAGES, annotations=OBJECTS, categories=CATEGORIES)
    content = read_tables(ann_file, layout)
    _check_objects(ann_file, content, needs_masks)
    if split == 'train' and all(row['iscrowd'] for row in content['annotations']):
        raise DataError(
            f'{ann_file} has no annotations but crowds, so nothing can be learnt.'
        )
    names = [image['file_name'] for image in content['images']]
    image_dir = find_image_dir(root, ann_file, split, names)
    classes = tuple(category['name'] for category in content['categories'])
    return CocoSplit(ann_file, dict(img=image_dir), dict(classes=classes))


def _check_objects(ann_file: Path, content: dict, needs_masks: bool) -> None:
    """Every object must have a box, and a known image and category."""
    images = {row['id'] for row in content['images']}
    categories = {row['id'] for row in content['categories']}
    for row in content['annotations']:
        place = f'{ann_file}: the annotation with id {row["id"]} has'
        if row['image_id'] not in images:
            raise DataError(
                f"{place} image_id {row['image_id']!r}, which is not in 'images'."
            )
        if row['category_id'] not in categories:
            raise DataError(
                f'{place} category_id {row["category_id"]!r}, which is not in '
                "'categories'."
            )
        box = row['bbox']
        if len(box) != 4 or not all(isinstance(x, Real) for x in box):
            raise DataError(f'{place} bbox {box!r}; give [x, y, width, height].')
        if needs_masks and not _is_segmentation(row.get('segmentation')):
            raise DataError(
                f"{place} no 'segmentation' (polygons or a run-length code), which "
                "this config's mask head learns from; use a config without masks."
            )


def _is_segmentation(value) -> bool:
    """Whether it is what COCO keeps: polygons of 3 or more points, or an RLE."""
    if isinstance(value, dict):
        return {'counts', 'size'} <= value.keys()
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, list) and len(part) >= 6 for part in value)
    )


def build_inferencer(cfg: Config, device: str):
    """mmdet's inferencer."""
    from mmdet.apis import DetInferencer

    return DetInferencer(cfg, device=device)


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The objects in an image: labels, classes, scores, boxes and masks."""
    done = inferencer(str(image), return_vis=True, pred_score_thr=score_thr)
    (found,), (drawing,) = done['predictions'], done['visualization']
    found['classes'] = [inferencer.classes[label] for label in found['labels']]
    return Prediction(found, drawing)


def draw_tests(cfg: Config, folder: str) -> None:
    """Let mmdet's visualisation hook draw into a folder."""
    cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder)


def dump_metric() -> type:
    """mmdet's own kind of dump, which writes masks run-length encoded."""
    from mmdet.evaluation import DumpDetResults

    return DumpDetResults


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
    layout='COCO-style (annotations/instances_{train,val}*.json and image folders)',
    use_data=use_detection_data,
    build_inferencer=build_inferencer,
    predict=predict,
    draw_tests=draw_tests,
    dump_metric=dump_metric,
    image_size=(800, 1280),
    heads=dict(
        SingleStageDetector=run_single_stage,
        TwoStageDetector=run_two_stage,
    ),
    sample=make_sample,
)
