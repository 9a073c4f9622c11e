"""COCO: annotation files that list images, and folders of these."""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from collections import Counter
from pathlib import Path, PurePosixPath

from ..base import DataError
from ..findings import Findings
from ..objects import ObjectTables
from . import Layout

# Kinds of annotation files, by what their names start with, and what they hold.
KINDS = dict(
    instances='objects, for a detector such as Mask R-CNN',
    panoptic='things and stuff, for a panoptic segmentor such as Panoptic FPN',
)

TEST_FOR_VAL = 'split is the one named test, as none is named val'

# What the tables of all kinds of annotation files must hold, and of which type.
IMAGES = dict(id=int | str, file_name=str)
CATEGORIES = dict(id=int | str, name=str)
OBJECTS = dict(image_id=int | str, category_id=int | str)


def find_coco(root: Path) -> str | None:
    """Why a folder is taken for COCO's, or None."""
    found = [path for split in ('train', 'val') for path in _files_of(root, split)]
    return str(found[0].relative_to(root)) if found else None


def _files_of(root: Path, split: str) -> list[Path]:
    """The annotation files of a split, of all kinds."""
    patterns = [f'annotations/{kind}_{split}*.json' for kind in KINDS]
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def read_coco(
    root: Path, splits: tuple[str, ...], findings: Findings
) -> dict[str, ObjectTables]:
    """Read ``annotations/instances_{train,val}*.json``.

    Args:
        root (Path): the folder that holds ``annotations``.
        splits (tuple[str]): of 'train' and 'val'. Where none is named val, test stands
            in for it; without that, train is under 'all'.
        findings (Findings): says so.

    Raises:
        DataError: says what was looked for and where.
    """
    layout = dict(images=IMAGES, annotations=OBJECTS, categories=CATEGORIES)
    files = {split: split for split in splits}
    if not _files_of(root, 'val'):
        if any(root.glob('annotations/instances_test*.json')):
            files['val'] = 'test'
            findings.add('val', TEST_FOR_VAL, str(root))
        else:
            files = dict(all='train')
    tables = {}
    for name, split in files.items():
        ann_file = find_annotations(root, 'instances', split)
        content = read_tables(ann_file, layout)
        images = content['images']
        image_dir, renamed = _find_images(root, ann_file, split, images)
        if renamed:
            reason = 'images were found by the ends of their names'
            findings.add(name, reason, renamed, len(images))
        changed = bool(renamed) or has_mark(ann_file)
        tables[name] = ObjectTables(ann_file, image_dir, content, changed)
    return tables


COCO = Layout(
    name='COCO',
    described='annotations/instances_{train,val}*.json and image folders',
    find=find_coco,
    read=read_coco,
    plain=True,
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
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f'{ann_file} cannot be read as JSON: {error}.') from None
    for table, kinds in layout.items():
        rows = content.get(table) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f'{ann_file} is not a COCO annotation file: it has no list {table!r}.'
            )
        for i, row in enumerate(rows):
            check_row(ann_file, f'{table}[{i}]', row, kinds)
        ids = Counter(row['id'] for row in rows if 'id' in kinds)
        twice = next((i for i, count in ids.items() if count > 1), None)
        if twice is not None:
            raise DataError(f'{ann_file} has the id {twice!r} twice in {table!r}.')
    for table in ('images', 'categories'):
        if not content[table]:
            raise DataError(f'{ann_file} has an empty list {table!r}.')
    return content


def has_mark(path: Path) -> bool:
    """Whether a file starts with a byte order mark, which training does not read."""
    with path.open('rb') as file:
        return file.read(len(BOM_UTF8)) == BOM_UTF8


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


def _find_images(
    root: Path, ann_file: Path, split: str, images: list[dict]
) -> tuple[Path, str]:
    """The folder of the images, by their names or, in place, by the ends of these.

    Names may begin with folders of another machine, or with ones left out here.

    Returns:
        tuple: the folder; and of the first image both names, where they were cut.
    """
    names = [image['file_name'] for image in images]
    parts = [PurePosixPath(name.replace('\\', '/')).parts for name in names]
    try:
        return find_image_dir(root, ann_file, split, names), ''
    except DataError:
        for start in range(max(map(len, parts))):
            ends = ['/'.join(part[start:]) for part in parts]
            if len(set(ends) - {''}) < len(set(names)):
                break
            try:
                image_dir = find_image_dir(root, ann_file, split, ends)
            except DataError:
                continue
            for image, end in zip(images, ends, strict=True):
                image['file_name'] = end
            return image_dir, f'{names[0]!r} as {image_dir / ends[0]}'
        raise


def find_image_dir(root: Path, ann_file: Path, split: str, names: list[str]) -> Path:
    """The folder of the images that an annotation file lists.

    Args:
        root (Path): the folder that holds ``annotations``.
        ann_file (Path): with a name such as ``instances_train2017.json``.
        split (str): 'train' or 'val'.
        names (list[str]): of the images.

    Raises:
        DataError: if no folder has them all.
    """
    suffix = ann_file.stem.partition('_')[2]  # e.g. train2017
    tried = [root / name for name in (suffix, f'images/{suffix}', split)]
    tried += [root / f'images/{split}', root / 'images', root]
    folders = [path for path in dict.fromkeys(tried) if path.is_dir()]
    missing = {}
    for image_dir in folders:
        missing[image_dir] = missing_files(image_dir, names)
        if not missing[image_dir]:
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
