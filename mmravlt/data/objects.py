"""Objects in images, as COCO's tables: what is wrong, and what can be mended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .base import DataError, DataOptions
from .boxes import COCO_FORMAT, read_boxes
from .findings import Findings
from .image_tables import ImageTables, check_size_types, check_sizes, check_twice
from .values import check_values


class ObjectTables(ImageTables):
    """The objects of one split, whatever layout they came from."""


def check_objects(
    tables: ObjectTables,
    split: str,
    options: DataOptions,
    findings: Findings,
    sizes: list,
) -> None:
    """Check the objects of a split, and mend what has one right answer, in place.

    An object that training cannot use is taken out of the tables, so that it is not
    scored either: what finds all objects that are left scores 1. Crowds, and objects
    with ``ignore``, which become crowds, stay: they are not learnt, and what is found
    there is not scored.

    Args:
        tables (ObjectTables): of the split; ``changed`` is set where they are mended.
        split (str): 'train' or 'val'.
        options (DataOptions): with ``masks``; without ``check``, values are taken as
            they are, and only what no reader can do without is filled in.
        findings (Findings): what is left out or mended is counted there.
        sizes (list): of the images' files, as :func:`check_sizes` takes them.

    Raises:
        DataError: names the first image or annotation that is wrong, or says why
            nothing is left of the split.
    """
    source, content = tables.source, tables.content
    images, rows = content['images'], content['annotations']
    check_categories(source, content['categories'])
    check_twice(source, images)
    check_size_types(source, images)
    tables.changed |= check_sizes(source, images, sizes, split, findings)
    check_ids(source, content)
    numbers = {image['id']: i for i, image in enumerate(images)}
    categories = {row['id'] for row in content['categories']}
    for row in rows:
        for key, known, table in (
            ('image_id', numbers, 'images'),
            ('category_id', categories, 'categories'),
        ):
            if row[key] not in known:
                place = f'{source}: the annotation with id {row.get("id")!r} has'
                raise unknown_id(f'{place} {key}', row[key], known, table)
    if options.check:
        places = [numbers[row['image_id']] for row in rows]
        check_values(tables, split, options.masks, findings, places)
    else:
        _fill_in(tables, options.masks)
    _number(tables, split, findings)


def check_categories(source: Path, categories: list[dict]) -> None:
    """Raise DataError if classes have no name, or one that another has, too."""
    seen: dict[str, object] = {}
    for row in categories:
        name = row['name'].strip()
        if not name:
            raise DataError(
                f'{source} has an empty name for the category with id {row["id"]!r}; '
                'name it.'
            )
        if name in seen:
            raise DataError(
                f'{source} names the category {name!r} twice, with the ids '
                f'{seen[name]!r} and {row["id"]!r}; give each a name of its own.'
            )
        seen[name] = row['id']


def check_ids(source: Path, content: dict) -> None:
    """Raise DataError if ids of images or categories are of several types.

    Scoring sorts them, which makes all text where one is.
    """
    for table in ('images', 'categories'):
        ids = [row['id'] for row in content[table]]
        if len(set(map(type, ids))) > 1:
            other = next(i for i in ids if type(i) is not type(ids[0]))
            raise DataError(
                f'{source} has the ids {ids[0]!r} and {other!r} in {table!r}; make all '
                'of them numbers, or all text.'
            )


def unknown_id(place: str, value, known: Iterable, table: str) -> DataError:
    """What to raise for an id that is not in a table.

    Args:
        place (str): what has it, to begin the message with.
        value (int | str): the id.
        known (Iterable): those in the table.
        table (str): name of it.
    """
    text = f'{place} {value!r}, which is not in {table!r}'
    twin = next((other for other in known if str(other) == str(value)), None)
    if twin is not None:
        text += f', where {twin!r} is of another type; write both alike'
    return DataError(f'{text}.')


def _fill_in(tables: ObjectTables, masks: bool) -> None:
    """Give annotations the keys that no reader can do without, whatever their values.

    Raises:
        DataError: names the first annotation without a box or a mask that is needed,
            or says that there are none but crowds.
    """
    rows = tables.content['annotations']
    for row in rows:
        place = f'{tables.source}: the annotation with id {row.get("id")!r} has'
        box = row.get('bbox')
        if not isinstance(box, list) or len(box) != 4:
            raise DataError(f'{place} bbox {box!r}; give {COCO_FORMAT} in pixels.')
        if masks and not row.get('segmentation'):
            raise DataError(
                f'{place} no segmentation (polygons or a run-length code), which the '
                'mask head of this config learns from; use a config without masks.'
            )
        if row.get('iscrowd') is None:
            row['iscrowd'] = 0
            tables.changed = True
        if row.get('area') is None:
            read_boxes([row], lambda i, place=place: place)  # of numbers
            row['area'] = box[2] * box[3]
            tables.changed = True
    if all(row['iscrowd'] for row in rows):
        raise DataError(
            f'{tables.source} has no object but crowds that can be learnt or scored.'
        )


def _number(tables: ObjectTables, split: str, findings: Findings) -> None:
    """Number annotations anew unless all have a number of their own, from 1 on.

    Scoring takes the id 0 for no match, and keeps ids as numbers.
    """
    rows = tables.content['annotations']
    seen = set()
    wrong = []
    for row in rows:
        number = row.get('id')
        if type(number) is not int or number < 1 or number in seen:
            wrong.append(row)
        else:
            seen.add(number)
    if not wrong:
        return
    findings.add(
        split,
        'annotations have no number of their own above 0 as id; all are numbered anew',
        f'id {wrong[0].get("id")!r}',
        len(wrong),
    )
    for number, row in enumerate(rows, 1):
        row['id'] = number
    tables.changed = True
