"""Data for detectors: objects with boxes, and masks if they have some."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once, write_text
from .findings import Findings
from .images import inspect_images
from .layouts import choose_layout
from .layouts.coco import COCO
from .objects import ObjectTables, check_objects

LAYOUTS = (COCO,)


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
    tables = layout.read(root, options.splits)
    findings = Findings()
    classes = _same_classes(tables)
    paths = [
        table.image_dir / image['file_name']
        for table in tables.values()
        for image in table.content['images']
    ]
    _, notes, bit_depth = inspect_images(paths, f'images in {root}', options)
    splits = {}
    for split, table in tables.items():
        check_objects(table, split, options, findings)
        splits[split] = _write(table, folder / f'{split}.json')
    notes = [*findings.notes(), *notes]
    return Prepared(layout.name, classes, splits, notes, bit_depth)


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
        objects=len(tables.content['annotations']),
    )
