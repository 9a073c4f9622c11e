"""Configs of mmdet whose data is in files of COCO's kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Prepared
from .config import palette, relative_path, type_name, used_datasets

if TYPE_CHECKING:
    from mmengine.config import Config


def use_coco(
    cfg: Config,
    root: Path,
    training: bool,
    data: Prepared,
    dataset_type: str,
    metric: dict,
) -> None:
    """Make the datasets and evaluators of a config use prepared data.

    Args:
        cfg (Config): changed in place.
        root (Path): the folder of the data; paths inside it are written relative to it.
        training (bool): whether the training split is used.
        data (Prepared): each split has ``ann_file``, ``image_dir`` and, of panoptic
            data, ``map_dir``.
        dataset_type (str): mmdet's name of a dataset.
        metric (dict): an evaluator; options of one of this type in ``cfg`` win.
    """
    classes = tuple(data.classes)
    metainfo = dict(classes=classes, palette=palette(len(classes)))
    if data.things is not None:
        metainfo.update(
            thing_classes=classes[: data.things], stuff_classes=classes[data.things :]
        )
    for dataset, name in used_datasets(cfg, training):
        split = data.splits[name]
        folders = dict(img=split['image_dir'])
        if 'map_dir' in split:
            folders['seg'] = split['map_dir']
        dataset.update(
            type=dataset_type,
            metainfo=metainfo,
            data_root=str(root),
            ann_file=relative_path(split['ann_file'], root),
            data_prefix={
                key: relative_path(path, root) for key, path in folders.items()
            },
        )
    val = data.splits['val']
    paths = dict(ann_file=val['ann_file'])
    if 'map_dir' in val:
        paths['seg_prefix'] = val['map_dir']
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            evaluator = cfg.get(f'{split}_evaluator') or []
            given = evaluator if isinstance(evaluator, list) else [evaluator]
            kept = [m for m in given if type_name(m) == metric['type']]
            cfg[f'{split}_evaluator'] = {**(kept[0] if kept else metric), **paths}
