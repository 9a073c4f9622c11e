"""COCO-style folders, for mmdet."""

import json
import os
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from mmengine.config import Config

from .common import (
    DataError,
    check_files,
    dicts,
    image_size,
    is_first_process,
    palette,
    set_num_classes,
    type_name,
    used_datasets,
)

# What each table of a COCO annotation file must hold, and of which type.
COCO_LAYOUT = {
    'images': dict(id=int | str, file_name=str, height=Real, width=Real),
    'annotations': dict(
        id=int | str,
        image_id=int | str,
        category_id=int | str,
        bbox=list,
        area=Real,
        iscrowd=int,
    ),
    'categories': dict(id=int | str, name=str),
}


@dataclass
class CocoSplit:
    """One annotation file and the folder of its images.

    Attributes:
        ann_file (Path): the annotation file.
        image_dir (Path): the folder that its ``file_name`` entries start from.
        classes (tuple[str]): category names in the order of the file, which
            is the order in which mmdet numbers them.
    """

    ann_file: Path
    image_dir: Path
    classes: tuple[str, ...]


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
    val = read_coco_split(root, 'val', needs_masks)
    splits = dict(val=val)
    if training:
        train = read_coco_split(root, 'train', needs_masks)
        if train.classes != val.classes:
            raise DataError(
                f'{train.ann_file} and {val.ann_file} must list the same categories '
                f'in the same order, but one has {list(train.classes)} and the other '
                f'{list(val.classes)}.'
            )
        splits['train'] = train

    metainfo = dict(classes=val.classes, palette=palette(len(val.classes)))
    for dataset, name in used_datasets(cfg, training):
        split = splits[name]
        dataset.update(
            type='CocoDataset',
            metainfo=metainfo,
            data_root=str(root),
            ann_file=str(split.ann_file.relative_to(root)),
            data_prefix=dict(img=str(split.image_dir.relative_to(root))),
        )
    metrics = ['bbox', 'segm'] if needs_masks else ['bbox']
    for split in ('val', 'test'):
        if not cfg.get(f'{split}_dataloader'):
            continue
        key = f'{split}_evaluator'
        evaluator = cfg.get(key) or []
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            if type_name(metric) == 'CocoMetric':  # keep its options
                break
        else:
            metric = dict(type='CocoMetric', metric=metrics)
        cfg[key] = {**metric, 'ann_file': str(val.ann_file)}
    set_num_classes(cfg, len(val.classes))


def read_coco_split(root: Path, split: str, needs_masks: bool) -> CocoSplit:
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
    pattern = f'annotations/instances_{split}*.json'
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        names = ', '.join(path.name for path in found) or 'nothing'
        raise DataError(
            f'{root} must hold exactly one {pattern}; found there: {names}.'
        )
    (ann_file,) = found
    content = _read_coco(ann_file)
    _check_objects(ann_file, content, needs_masks)
    if split == 'train' and all(row['iscrowd'] for row in content['annotations']):
        raise DataError(
            f'{ann_file} has no annotations but crowds, so nothing can be learnt.'
        )

    suffix = ann_file.stem.removeprefix('instances_')  # e.g. train2017
    tried = [root / name for name in (suffix, f'images/{suffix}', split)]
    tried += [root / f'images/{split}', root / 'images', root]
    folders = [path for path in dict.fromkeys(tried) if path.is_dir()]
    names = [image['file_name'] for image in content['images']]
    missing = {}
    for image_dir in folders:
        missing[image_dir] = _missing_files(image_dir, names)
        if not missing[image_dir]:
            if is_first_process():
                paths = [image_dir / name for name in names]
                check_files(image_size, paths, f'images in {image_dir}')
            classes = tuple(c['name'] for c in content['categories'])
            return CocoSplit(ann_file, image_dir, classes)
    closest = min(missing, key=lambda path: len(missing[path]))
    raise DataError(
        f'{ann_file} lists {len(names)} images; {len(missing[closest])} of them, such '
        f'as {missing[closest][0]!r}, are not in {closest} (looked in '
        f'{", ".join(map(str, folders))} too).'
    )


def _read_coco(ann_file: Path) -> dict:
    """Parse an annotation file and check that it is COCO's layout."""
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as error:
        raise DataError(f'{ann_file} cannot be read as JSON: {error}.') from None
    for table, kinds in COCO_LAYOUT.items():
        rows = content.get(table) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f'{ann_file} is not a COCO annotation file: it has no list {table!r}.'
            )
        for i, row in enumerate(rows):
            for key, kind in kinds.items():
                value = row.get(key) if isinstance(row, dict) else None
                if not isinstance(value, kind):
                    raise DataError(
                        f'{ann_file} is not a COCO annotation file: {table}[{i}] has '
                        f'{key!r}: {value!r}, where a value of type '
                        f'{getattr(kind, "__name__", kind)} belongs.'
                    )
        ids = [row['id'] for row in rows]
        if len(ids) != len(set(ids)):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f'{ann_file} has the id {twice!r} twice in {table!r}.')
    for table in ('images', 'categories'):
        if not content[table]:
            raise DataError(f'{ann_file} has an empty list {table!r}.')
    return content


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


def _missing_files(folder: Path, names: list[str]) -> list[str]:
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
