"""COCO-style folders: annotation files, and the images that these list."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from .base import DataError
from .config import palette, type_name, used_datasets
from .files import check_files, image_size, is_first_process

if TYPE_CHECKING:
    from mmengine.config import Config

# Kinds of annotation files, by what their names start with, and what they hold.
KINDS = dict(
    instances='objects, for a detector such as Mask R-CNN',
    panoptic='things and stuff, for a panoptic segmentor such as Panoptic FPN',
)

# What the tables of all kinds of annotation files must hold, and of which type.
IMAGES = dict(id=int | str, file_name=str, height=Real, width=Real)
CATEGORIES = dict(id=int | str, name=str)


@dataclass(frozen=True)
class CocoSplit:
    """One annotation file and the folders that belong to it.

    Attributes:
        ann_file (Path): the annotation file.
        folders (dict): by the names of mmdet's ``data_prefix``: ``img``, from which
            its ``file_name`` entries start, and ``seg`` of panoptic data.
        metainfo (dict): ``classes``, category names in the order of the file, which
            is the order in which mmdet numbers them; ``thing_classes`` and
            ``stuff_classes`` of panoptic data.
    """

    ann_file: Path
    folders: dict[str, Path]
    metainfo: dict[str, tuple[str, ...]]


def use_coco(
    cfg: Config,
    root: Path,
    training: bool,
    read_split: Callable[[Path, str], CocoSplit],
    dataset_type: str,
    metric: dict,
) -> CocoSplit:
    """Make the datasets and evaluators of a config use a COCO-style folder.

    Args:
        cfg (Config): changed in place.
        root (Path): the folder that holds ``annotations``.
        training (bool): whether the training split must be there.
        read_split (Callable): gives the split of ``root`` with the name 'train' or
            'val'.
        dataset_type (str): mmdet's name of a dataset.
        metric (dict): an evaluator; options of one of this type in ``cfg`` win.

    Returns:
        CocoSplit: that of validation.

    Raises:
        DataError: if the folder lacks something.
    """
    splits = dict(val=read_split(root, 'val'))
    if training:
        splits['train'] = read_split(root, 'train')
        _check_same_classes(splits['train'], splits['val'])
    val = splits['val']
    metainfo = dict(val.metainfo, palette=palette(len(val.metainfo['classes'])))
    for dataset, name in used_datasets(cfg, training):
        split = splits[name]
        dataset.update(
            type=dataset_type,
            metainfo=metainfo,
            data_root=str(root),
            ann_file=str(split.ann_file.relative_to(root)),
            data_prefix={
                key: str(folder.relative_to(root))
                for key, folder in split.folders.items()
            },
        )
    paths = dict(ann_file=str(val.ann_file))
    if 'seg' in val.folders:
        paths['seg_prefix'] = str(val.folders['seg'])
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            evaluator = cfg.get(f'{split}_evaluator') or []
            given = evaluator if isinstance(evaluator, list) else [evaluator]
            kept = [m for m in given if type_name(m) == metric['type']]
            cfg[f'{split}_evaluator'] = {**(kept[0] if kept else metric), **paths}
    return val


def _check_same_classes(train: CocoSplit, val: CocoSplit) -> None:
    """Both splits must number the classes alike."""
    for key, described in (('classes', 'categories'), ('thing_classes', 'things')):
        one, other = (split.metainfo.get(key) for split in (train, val))
        if one != other:
            raise DataError(
                f'{train.ann_file} and {val.ann_file} must list the same {described} '
                f'in the same order, but one has {list(one)} and the other '
                f'{list(other)}.'
            )


def find_annotations(root: Path, kind: str, split: str) -> Path:
    """The one annotation file of a kind and a split.

    Args:
        root (Path): the folder that holds ``annotations``.
        kind (str): a key of :data:`KINDS`.
        split (str): 'train' or 'val'.

    Raises:
        DataError: says what was looked for and where.
    """
    pattern = f'annotations/{kind}_{split}*.json'
    found = sorted(root.glob(pattern))
    for other in KINDS.keys() - {kind} if not found else ():
        for wrong in root.glob(f'annotations/{other}_{split}*.json'):
            raise DataError(
                f'{root} has {wrong.relative_to(root)}, which holds {KINDS[other]}; '
                f'this config needs {pattern} ({KINDS[kind]}). Use a config of the '
                'other kind, or add these annotations.'
            )
    if len(found) != 1:
        names = ', '.join(path.name for path in found) or 'nothing'
        raise DataError(
            f'{root} must hold exactly one {pattern}; found there: {names}.'
        )
    return found[0]


def read_tables(ann_file: Path, layout: dict[str, dict]) -> dict:
    """Parse an annotation file and check that it is COCO's.

    Args:
        ann_file (Path): JSON.
        layout (dict): the tables that it must have, and of each the keys and types of
            its rows. Where these have an ``id``, it must tell them apart.

    Raises:
        DataError: names the first row that is not as it should be.
    """
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as error:
        raise DataError(f'{ann_file} cannot be read as JSON: {error}.') from None
    for table, kinds in layout.items():
        rows = content.get(table) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f'{ann_file} is not a COCO annotation file: it has no list {table!r}.'
            )
        for i, row in enumerate(rows):
            check_row(ann_file, f'{table}[{i}]', row, kinds)
        ids = [row['id'] for row in rows if 'id' in kinds]
        if len(ids) != len(set(ids)):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f'{ann_file} has the id {twice!r} twice in {table!r}.')
    for table in ('images', 'categories'):
        if not content[table]:
            raise DataError(f'{ann_file} has an empty list {table!r}.')
    return content


def check_row(ann_file: Path, place: str, row, kinds: dict) -> None:
    """Check the keys and types of one row of a table.

    Raises:
        DataError: names the first key that is not as it should be.
    """
    for key, kind in kinds.items():
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, kind):
            raise DataError(
                f'{ann_file} is not a COCO annotation file: {place} has '
                f'{key!r}: {value!r}, where a value of type '
                f'{getattr(kind, "__name__", kind)} belongs.'
            )


def find_image_dir(root: Path, ann_file: Path, split: str, names: list[str]) -> Path:
    """The folder of the images that an annotation file lists, all of them checked.

    Args:
        root (Path): the folder that holds ``annotations``.
        ann_file (Path): with a name such as ``instances_train2017.json``.
        split (str): 'train' or 'val'.
        names (list[str]): of the images.

    Raises:
        DataError: if no folder has them all, or one of them cannot be read.
    """
    suffix = ann_file.stem.partition('_')[2]  # e.g. train2017
    tried = [root / name for name in (suffix, f'images/{suffix}', split)]
    tried += [root / f'images/{split}', root / 'images', root]
    folders = [path for path in dict.fromkeys(tried) if path.is_dir()]
    missing = {}
    for image_dir in folders:
        missing[image_dir] = missing_files(image_dir, names)
        if not missing[image_dir]:
            if is_first_process():
                paths = [image_dir / name for name in names]
                check_files(image_size, paths, f'images in {image_dir}')
            return image_dir
    closest = min(missing, key=lambda path: len(missing[path]))
    raise DataError(
        f'{ann_file} lists {len(names)} images; {len(missing[closest])} of them, such '
        f'as {missing[closest][0]!r}, are not in {closest} (looked in '
        f'{", ".join(map(str, folders))} too).'
    )


def missing_files(folder: Path, names: list[str]) -> list[str]:
    """Names that are not below ``folder``; lists each folder only once."""
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, base = os.path.split(os.path.join(folder, name))
        if parent not in listings:
            is_dir = os.path.isdir(parent)
            listings[parent] = set(os.listdir(parent)) if is_dir else set()
        if base not in listings[parent]:
            missing.append(name)
    return missing
