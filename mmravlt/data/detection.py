"""Data for detectors: objects with boxes, and masks if they have some."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once, write_text
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
from .splits import choose_validation, part_of

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
    notes = []
    if 'all' in tables:
        tables, note = _split_all(tables['all'], root, options, folder)
        notes.append(note)
    elif options.val_fraction is not None:
        notes.append(f'--val-fraction is not used: {root} has a part for validation.')
    classes = _same_classes(tables)
    paths = [
        table.image_dir / image['file_name']
        for table in tables.values()
        for image in table.content['images']
    ]
    infos, seen, bit_depth = inspect_images(paths, f'images in {root}', options)
    splits = {}
    for split, table in tables.items():
        sizes = read_sizes(table.image_dir, table.content['images'], infos)
        check_objects(table, split, options, findings, sizes)
        splits[split] = _write(table, folder / f'{split}.json')
    images = {
        split: (table.image_dir, table.content['images'])
        for split, table in tables.items()
    }
    check_shared(images, findings)
    if len(images) > 1 and options.check:  # else it may be that of the other split
        count_unlisted(images, findings)
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
    listed = folder / 'val.txt'
    write_text(listed, '\n'.join(val) + '\n')
    ids = dict(val={names[name] for name in val})
    ids['train'] = set(names.values()) - ids['val']
    note = (
        f'{root} has no validation part: of its {len(ordered)} images, '
        f'{len(ids["train"])} are for training and {len(val)} for validation, chosen '
        f'by chance with seed {options.seed}; the latter are listed in {listed}.'
    )
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


def _write(tables: ObjectTables, path: Path) -> dict:
    """What training reads of a split: its own file, or one with what was changed."""
    if tables.changed:
        write_text(path, json.dumps(tables.content))
    return dict(
        ann_file=str(path if tables.changed else tables.source),
        image_dir=str(tables.image_dir),
        images=len(tables.content['images']),
        objects=sum(not row['iscrowd'] for row in tables.content['annotations']),
    )
