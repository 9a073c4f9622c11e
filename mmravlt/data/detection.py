"""Data for detectors: objects with boxes, and masks if they have some."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once
from .findings import Findings
from .image_tables import check_shared, count_unlisted, read_sizes
from .images import inspect_images
from .layouts import choose_layout
from .layouts.coco import COCO
from .layouts.coco_exports import COCO_EXPORT
from .layouts.labelme import LABELME
from .layouts.voc import VOC
from .layouts.yolo import YOLO
from .objects import ObjectTables, check_objects
from .splits import choose_validation, note_choice, note_unused, part_of

LAYOUTS = (COCO, COCO_EXPORT, YOLO, VOC, LABELME)


def prepare_objects(root: Path, options: DataOptions) -> Prepared:
    """Find, read, check and make ready the objects in a folder.

    Args:
        root (Path): in one of :data:`LAYOUTS`.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: each split has ``ann_file``, a file of COCO, ``image_dir``, from
        which the names in it start, and the number of ``images`` and ``objects``.

    Raises:
        DataError: says what is wrong and what to do.
    """
    return prepare_once(root, 'detection', options, partial(_prepare, root, options))


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    layout = choose_layout(root, LAYOUTS)
    findings = Findings()
    tables = layout.read(root, options.splits, findings)
    if 'all' in tables:
        tables, note = _split_all(tables['all'], root, options, folder)
        notes = [note]
    else:
        notes = note_unused(root, options)
    classes = _same_classes(tables)
    paths = [path for table in tables.values() for path in table.paths]
    infos, seen, bit_depth = inspect_images(paths, f'images in {root}', options)
    splits = {}
    for split, table in tables.items():
        sizes = read_sizes(table, infos)
        check_objects(table, split, options, findings, sizes)
        objects = sum(not row['iscrowd'] for row in table.content['annotations'])
        splits[split] = dict(table.save(folder / f'{split}.json'), objects=objects)
    check_shared(tables, findings)
    if len(tables) > 1 and options.check:  # else it may be that of the other split
        count_unlisted(tables, findings)
    notes += findings.notes() + seen
    return Prepared(layout.name, classes, splits, notes, bit_depth)


def _split_all(
    tables: ObjectTables, root: Path, options: DataOptions, folder: Path
) -> tuple[dict[str, ObjectTables], str]:
    """Choose images for validation; returns the splits needed and a note on them."""
    names = {row['file_name']: row['id'] for row in tables.content['images']}
    ordered = sorted(names)  # so the choice does not depend on how they are listed
    chosen = choose_validation(len(ordered), root, options)
    val = [ordered[i] for i in chosen]
    ids = dict(val={names[name] for name in val})
    ids['train'] = set(names.values()) - ids['val']
    note = note_choice(val, len(ordered), root, options, folder)
    return {split: part_of(tables, ids[split]) for split in options.splits}, note


def _same_classes(tables: dict[str, ObjectTables]) -> list[str]:
    """The classes, which all splits must number alike."""
    named = {
        split: [row['name'] for row in table.content['categories']]
        for split, table in tables.items()
    }
    (first, classes), *others = named.items()
    for split, names in others:
        if names != classes:
            raise DataError(
                f'{tables[first].source} and {tables[split].source} must list the same '
                f'categories in the same order, but one has {classes} and the other '
                f'{names}.'
            )
    return classes
