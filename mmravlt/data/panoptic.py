"""Data for panoptic segmentors: COCO's panoptic folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once
from .files import need_folder
from .findings import Findings
from .image_tables import check_shared, check_twice, count_unlisted
from .images import inspect_images
from .layouts.coco import (
    CATEGORIES,
    IMAGES,
    find_annotations,
    find_image_dir,
    has_mark,
    missing_files,
    read_tables,
)
from .objects import check_categories, check_ids
from .segments import SegmentTables, check_segments

MAPS = dict(image_id=int | str, file_name=str, segments_info=list)
MAX_CLASSES = 255  # mmdet takes 255 for pixels of no class


def prepare_panoptic(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check a folder in COCO's panoptic layout.

    Args:
        root (Path): holds ``annotations/panoptic_{train,val}*.json``, beside each a
            folder of the same name with one PNG per image, whose colours are the ids
            of segments, and, beside ``annotations``, the folders of images.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: with ``things``; each split has ``ann_file``, ``image_dir``,
        ``map_dir`` and the number of ``images``.

    Raises:
        DataError: says what was looked for and where, or what is wrong.
    """
    return prepare_once(root, 'panoptic', options, partial(_prepare, root, options))


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    read = {split: _read_split(root, split) for split in options.splits}
    (first, classes, things), *others = read.values()
    for other, other_classes, other_things in others:
        for name, one, two in (
            ('categories', classes, other_classes),
            ('things', classes[:things], other_classes[:other_things]),
        ):
            if one != two:
                raise DataError(
                    f'{first.source} and {other.source} must list the same {name} in '
                    f'the same order, but one has {one} and the other {two}.'
                )
    findings = Findings()
    splits = {}
    parts = {split: tables for split, (tables, *_) in read.items()}
    paths = [path for tables in parts.values() for path in tables.paths]
    infos, seen, bit_depth = inspect_images(paths, f'images in {root}', options)
    for split, tables in parts.items():
        check_segments(tables, split, options.check, findings, infos)
        saved = tables.save(folder / f'{split}.json')
        splits[split] = dict(saved, map_dir=str(tables.map_dir))
    check_shared(parts, findings)
    if len(parts) > 1 and options.check:  # else it may be that of the other split
        count_unlisted(parts, findings)
    notes = findings.notes() + seen
    return Prepared('COCO panoptic', classes, splits, notes, bit_depth, things)


def _read_split(root: Path, split: str) -> tuple[SegmentTables, list[str], int]:
    """Find one split of a panoptic folder, and check that nothing is missing.

    Args:
        root (Path): the folder that holds ``annotations``.
        split (str): 'train' or 'val'.

    Returns:
        tuple: the split, the classes, and how many of these are things.

    Raises:
        DataError: says what was looked for and where, or what is wrong.
    """
    ann_file = find_annotations(root, 'panoptic', split)
    categories = dict(CATEGORIES, isthing=int)
    layout = dict(images=IMAGES, annotations=MAPS, categories=categories)
    content = read_tables(ann_file, layout)
    check_categories(ann_file, content['categories'])
    check_ids(ann_file, content)
    classes, num_things = _read_classes(ann_file, content['categories'])
    check_twice(ann_file, content['images'])
    maps = _pair_maps(ann_file, content)
    image_dir = find_image_dir(root, ann_file, split, list(maps))
    map_dir = ann_file.with_suffix('')
    need_folder(map_dir, 'of PNG maps')
    missing = missing_files(map_dir, [row['file_name'] for row in maps.values()])
    if missing:
        raise DataError(
            f'{ann_file} lists {len(maps)} maps; {len(missing)} of them, such as '
            f'{missing[0]!r}, are not in {map_dir}.'
        )
    tables = SegmentTables(ann_file, image_dir, content, has_mark(ann_file), map_dir)
    return tables, classes, num_things


def _read_classes(ann_file: Path, categories: list[dict]) -> tuple[list[str], int]:
    """The names of all classes, things first, and how many of them are things."""
    names = [row['name'] for row in categories]
    things = tuple(row['name'] for row in categories if row['isthing'])
    stuff = tuple(row['name'] for row in categories if not row['isthing'])
    if not things or not stuff:
        raise DataError(
            f'{ann_file} has {len(things)} categories of things (isthing is 1) and '
            f'{len(stuff)} of stuff (0), but a panoptic segmentor needs both; use a '
            'detector for things alone, a semantic segmentor for stuff alone.'
        )
    if (*things, *stuff) != tuple(names):
        raise DataError(
            f'{ann_file} lists the stuff {stuff[0]!r} before the last of its things, '
            f'{things[-1]!r}, but mmdet numbers things first; put all categories with '
            'isthing 1 before the others.'
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f'{ann_file} has {len(names)} categories; mmdet tells at most '
            f'{MAX_CLASSES} apart.'
        )
    return names, len(things)


def _pair_maps(ann_file: Path, content: dict) -> dict[str, dict]:
    """The row in 'annotations' of each image, by the name of the image.

    mmdet looks for the map of an image by its name alone.
    """
    rows = {row['image_id']: row for row in content['annotations']}
    if len(rows) < len(content['annotations']):
        raise DataError(f'{ann_file} has two maps for one image; there must be one.')
    unknown = rows.keys() - {image['id'] for image in content['images']}
    if unknown:
        raise DataError(
            f'{ann_file} has a map with image_id {min(unknown, key=str)!r}, which is '
            "not in 'images'."
        )
    pairs = {}
    for image in content['images']:
        name, row = image['file_name'], rows.get(image['id'])
        if not name.endswith(('.jpg', '.png')) or Path(name).name != name:
            raise DataError(
                f'{ann_file} lists the image {name!r}; mmdet needs names that end in '
                '.jpg or .png, without folders in them.'
            )
        if row is None:
            raise DataError(f'{ann_file} has no map for the image {name!r}.')
        expected = name.replace('.jpg', '.png')
        if row['file_name'] != expected:
            raise DataError(
                f'{ann_file} says that the map of {name!r} is {row["file_name"]!r}, '
                f'but mmdet looks for {expected!r}; rename it.'
            )
        pairs[name] = row
    return pairs
