"""Classification, with mmpretrain: images, each of one class."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..data import DataError, DataOptions, Prepared
from ..data.accepted import ACCEPTED
from ..data.classification import prepare_classes
from ..data.images import image_size
from .base import Prediction, Task, sample_meta
from .config import (
    bit_depth_of,
    dicts,
    replace_dataset,
    set_num_classes,
    type_name,
    used_datasets,
)

if TYPE_CHECKING:
    from mmengine.config import Config


def use_classification_data(cfg: Config, root: Path, options: DataOptions) -> Prepared:
    """Make the config of a classifier use a list of images and their classes.

    Args:
        cfg (Config): changed in place.
        root (Path): in a layout of :mod:`mmravlt.data.classification`.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: what was found.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    training = 'train' in options.splits
    datasets = used_datasets(cfg, training)
    _check_config(cfg, datasets)
    data = prepare_classes(root, options)
    classes = tuple(data.classes)
    if training:
        images = data.splits['train']['images']
        loader = cfg.train_dataloader
        if images < loader.get('batch_size', 1) * int(os.environ.get('WORLD_SIZE', 1)):
            loader.drop_last = False  # the only batch is an incomplete one
    set_num_classes(cfg, len(classes))
    around = [cfg.get(f'{split}_evaluator') for split in ('val', 'test')]
    around.append(cfg.get('data_preprocessor'))
    for node in dicts(around):
        if 'num_classes' in node:
            node['num_classes'] = len(classes)
    for node in dicts([cfg.model, *around]):
        if 'topk' in node:
            node['topk'] = _at_most(node['topk'], len(classes))
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('ema_type') == 'ExponentialMovingAverage':
            # An average over ImageNet's 25,000 iterations would still hold the
            # random weights when training on less data has ended.
            hook.ema_type = 'MomentumAnnealingEMA'
    for dataset, split in datasets:
        replace_dataset(
            dataset,
            dict(
                type='CustomDataset',
                metainfo=dict(classes=classes),
                data_root=str(root),
                ann_file=data.splits[split]['ann_file'],
            ),
        )
    return data


def _check_config(cfg: Config, datasets: list[tuple[dict, str]]) -> None:
    """Refuse a config that learns something other than one class per image."""
    for node in dicts(cfg.model):
        if 'MultiLabel' in type_name(node) or {'task_heads', 'prototype'} & node.keys():
            raise DataError(
                '--data gives each image one class, which is not what the '
                f'{type_name(node)} of this config learns; use a config of a '
                'classifier for ImageNet.'
            )
    for dataset, _ in datasets:
        if not any(type_name(s).startswith('Load') for s in dataset['pipeline']):
            raise DataError(
                f'--data needs a pipeline that loads image files, but that of this '
                f'config (for {type_name(dataset)}) has no LoadImageFromFile; use a '
                'config for ImageNet.'
            )


def _at_most(topk: int | tuple[int, ...], count: int) -> int | tuple[int, ...]:
    """Those k for which the best k of ``count`` classes exist; else 1."""
    if isinstance(topk, int):
        return topk if topk <= count else 1
    return tuple(k for k in topk if k <= count) or (1,)


def build_inferencer(cfg: Config, device: str):
    """mmpretrain's inferencer."""
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.utils import progress

    progress.disable_progress_bar = True
    return ImageClassificationInferencer(cfg, device=device, pretrained=False)


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The class of an image, and the scores of all classes."""
    side = min(max(224, min(image_size(image))), 4000)  # or its text is too small
    with tempfile.TemporaryDirectory() as unused:  # or it would not draw
        (found,) = inferencer(str(image), show_dir=unused, resize=side)
    found['pred_scores'] = found['pred_scores'].tolist()
    return Prediction(found, inferencer.visualizer.get_image())


def draw_tests(cfg: Config, folder: str) -> None:
    """Let mmpretrain's visualisation hook draw into a folder."""
    from ..openmmlab.drawing import draw_each_image

    options = dict(enable=True, interval=1, out_dir=None)
    draw_each_image(cfg, folder, bit_depth_of(cfg), **options)


def dump_metric() -> type:
    """MMEngine's dump of whole predictions."""
    from mmengine.evaluator import DumpResults

    return DumpResults


def report() -> type:
    """What collects tables and pictures of an evaluation."""
    from ..reports.classification import ClassificationReport

    return ClassificationReport


def run_head(meter, features: tuple[Tensor, ...]) -> None:
    """The head of a classifier."""
    if meter.model.with_head:
        meter.run('head', features)


def make_sample(size: tuple[int, int]):
    """A data sample of the first class."""
    from mmpretrain.structures import DataSample

    return DataSample(metainfo=sample_meta(size)).set_gt_label(0)


CLASSIFICATION = Task(
    name='classification',
    package='mmpretrain',
    distributions=('mmpretrain', 'onedl-mmpretrain'),
    layout=ACCEPTED['classification'],
    use_data=use_classification_data,
    build_inferencer=build_inferencer,
    predict=predict,
    draw_tests=draw_tests,
    dump_metric=dump_metric,
    report=report,
    score=lambda cfg: 'accuracy/top1',
    image_size=(224, 224),
    heads=dict(ImageClassifier=run_head),
    sample=make_sample,
)
