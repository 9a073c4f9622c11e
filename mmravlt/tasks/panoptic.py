"""Panoptic segmentation, with mmdet: COCO's panoptic folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data import DataOptions, Prepared
from ..data.accepted import ACCEPTED
from ..data.panoptic import prepare_panoptic
from .base import Prediction, Task
from .coco import use_coco
from .config import dicts, set_class_weights, set_num_classes
from .detection import DETECTION, run_two_stage

if TYPE_CHECKING:
    from mmengine.config import Config

IGNORED = 255  # what mmdet takes for pixels of no class


def recognises(cfg: Config) -> bool:
    """Whether a head of the model tells stuff apart, too."""
    return any(node.get('num_stuff_classes') for node in dicts(cfg.get('model')))


def use_panoptic_data(cfg: Config, root: Path, options: DataOptions) -> Prepared:
    """Make the config of a panoptic segmentor use COCO's panoptic layout.

    Args:
        cfg (Config): changed in place.
        root (Path): as :func:`mmravlt.data.panoptic.prepare_panoptic` describes it.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: what was found.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    data = prepare_panoptic(root, options)
    metric = dict(type='CocoPanopticMetric')
    training = 'train' in options.splits
    use_coco(cfg, root, training, data, 'CocoPanopticDataset', metric)
    things, stuff = data.things, len(data.classes) - data.things
    for head in dicts(cfg.model):
        if 'num_stuff_classes' in head:
            old = head['num_things_classes'] + head['num_stuff_classes']
            head.update(num_things_classes=things, num_stuff_classes=stuff)
            set_class_weights(head, old, things + stuff)
    if any('num_classes' in node for node in dicts(cfg.model)):
        set_num_classes(cfg, things)  # of what finds the objects
    return data


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The segments of an image, and a map of their ids in COCO's colours.

    An id is mmdet's: the label, plus 1000 for the first object, 2000 for the second …
    """
    from mmdet.evaluation import INSTANCE_OFFSET
    from panopticapi.utils import id2rgb

    done = inferencer(str(image), return_vis=True, return_datasamples=True)
    (sample,), (drawing,) = done['predictions'], done['visualization']
    ids = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
    names, things = inferencer.classes, inferencer.model.num_things_classes
    ids = np.where(ids % INSTANCE_OFFSET < len(names), ids, 0)  # 0 is no segment
    segments = []
    for i, area in zip(*np.unique(ids[ids > 0], return_counts=True), strict=True):
        label = int(i) % INSTANCE_OFFSET
        segment = dict(id=int(i), label=label, is_thing=label < things, area=int(area))
        segments.append({**segment, 'class': names[label]})
    return Prediction(dict(segments=segments), drawing, id2rgb(ids))


def report() -> type:
    """What collects tables and pictures of an evaluation."""
    from ..reports.panoptic import PanopticReport

    return PanopticReport


def run_heads(meter, features: tuple[Tensor, ...]) -> None:
    """The heads of a detector, and the one for stuff; fusing costs no multiply-adds."""
    run_two_stage(meter, features)
    meter.run('semantic_head', features)


def make_sample(size: tuple[int, int]):
    """A data sample with four objects, each a filled box, and nothing else labelled."""
    from mmengine.structures import PixelData

    sample = DETECTION.sample(size)
    labels = torch.full((1, *size), IGNORED)
    objects = sample.gt_instances
    for label, mask in zip(objects.labels, objects.masks.masks, strict=True):
        labels[0, torch.from_numpy(mask).bool()] = label
    sample.gt_sem_seg = PixelData(sem_seg=labels)
    return sample


PANOPTIC = Task(
    name='panoptic segmentation',
    package=DETECTION.package,
    distributions=DETECTION.distributions,
    layout=ACCEPTED['panoptic segmentation'],
    use_data=use_panoptic_data,
    build_inferencer=DETECTION.build_inferencer,
    predict=predict,
    draw_tests=DETECTION.draw_tests,
    dump_metric=DETECTION.dump_metric,
    report=report,
    score=lambda cfg: 'coco_panoptic/PQ',
    image_size=DETECTION.image_size,
    heads=dict(TwoStagePanopticSegmentor=run_heads),
    sample=make_sample,
    recognises=recognises,
)
