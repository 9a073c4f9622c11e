"""COCO's annotation files under the names that other tools give them."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ..base import DataError
from ..files import IMAGE_SUFFIXES, check_files, list_files, visible
from ..findings import Findings
from ..images import image_size
from ..objects import ObjectTables
from ..splits import part_of
from . import Layout
from .coco import (
    CATEGORIES,
    IMAGES,
    OBJECTS,
    find_coco,
    has_mark,
    missing_files,
    read_tables,
)
from .common import by_split, split_folders, split_of, use_splits

TABLES = ('images', 'annotations', 'categories')

# A file of COCO is about many images, so it is among the largest in its folder;
# others, one for each image, need not all be opened.
OPENED = 10


def find_export(root: Path) -> str | None:
    """An annotation file of COCO in one of the usual places, or None."""
    found = [] if find_coco(root) else _annotation_files(root)
    return str(found[0].relative_to(root)) if found else None


def read_export(
    root: Path, splits: tuple[str, ...], findings: Findings
) -> dict[str, ObjectTables]:
    """Read annotation files of COCO that are named after splits, or the only one.

    Args:
        root (Path): holds them, itself or in ``annotations`` or in a folder for each
            split.
        splits (tuple[str]): of 'train' and 'val'.
        findings (Findings): what was read in another way than it stands there.

    Raises:
        DataError: says what is wrong and what to do.
    """
    files = _files_by_split(root, findings)
    if 'all' in files:
        whole = _read_file(root, files['all'])
        _find_images(root, whole, 'all', findings)
        found = _split_by_images(root, whole)
        tables = use_splits(root, found, splits, findings) if found else dict(all=whole)
    else:
        used = use_splits(root, files, splits, findings)
        tables = {split: _read_file(root, file) for split, file in used.items()}
    _drop_group(tables, findings)  # by what occurs in any split
    tables = {name: x for name, x in tables.items() if name in ('all', *splits)}
    for name, part in tables.items():
        if 'all' not in files:
            _find_images(root, part, name, findings)
        _fill_sizes(part)
    return tables


COCO_EXPORT = Layout(
    name='COCO export',
    described='{train,valid}/_annotations.coco.json (Roboflow), '
    'annotations/instances_default.json (CVAT), result.json (Label Studio), '
    '{train,val}.json or one JSON of COCO',
    find=find_export,
    read=read_export,
)


def _annotation_files(root: Path) -> list[Path]:
    """The annotation files of COCO in the usual places."""
    folders = [root / 'annotations', root, *split_folders(root).values()]
    found = []
    for folder in folders:
        files = [x for x in visible(folder, '*.json') if x.is_file()]
        files.sort(key=lambda path: (-path.stat().st_size, path.name))
        found += sorted(
            path
            for path in files[:OPENED]
            if _is_coco(str(path), path.stat().st_mtime_ns)
        )
        if found and folder in folders[:2]:
            break  # what is in folders of images may be older
    objects = [path for path in found if path.name.startswith('instances')]
    return objects or found  # CVAT writes one for each kind of labels


@lru_cache(maxsize=100)
def _is_coco(path: str, time: int) -> bool:
    """Whether a file has the three tables; ``time`` is that of its last change."""
    try:
        text = Path(path).read_text(encoding='utf-8-sig')
        if not all(f'"{table}"' in text for table in TABLES):
            return False
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    if not all(isinstance(content.get(table), list) for table in TABLES):
        return False
    rows = content['annotations']
    return not any(isinstance(x, dict) and 'segments_info' in x for x in rows[:1])


def _files_by_split(root: Path, findings: Findings) -> dict[str, Path]:
    """The annotation file of each split, or the only one under 'all'."""
    files = _annotation_files(root)
    own = [path for path in files if split_of(path.name)]
    in_folders = {x.parent: x for x in files if x.parent.name != 'annotations'}
    folders = by_split(root, [x for x in in_folders if x != root])
    for path in files if own else ():
        if path not in own:
            reason = 'annotation files are left out, as their names tell no split'
            findings.add('all', reason, str(path.relative_to(root)))
    if own:
        return by_split(root, own)
    if folders and len(in_folders) == len(files):
        return {split: in_folders[folder] for split, folder in folders.items()}
    if len(files) > 1:
        names = ', '.join(str(path.relative_to(root)) for path in files)
        raise DataError(
            f'{root} has several annotation files of COCO, {names}, whose names tell '
            'no splits; name them train.json and val.json, or leave one.'
        )
    return dict(all=files[0])


def _read_file(root: Path, ann_file: Path) -> ObjectTables:
    """Read one annotation file, whose images need not have sizes."""
    sizeless = {k: kind for k, kind in IMAGES.items() if k not in ('height', 'width')}
    layout = dict(images=sizeless, annotations=OBJECTS, categories=CATEGORIES)
    content = read_tables(ann_file, layout)
    return ObjectTables(ann_file, root, content, has_mark(ann_file))


def _fill_sizes(tables: ObjectTables) -> None:
    """Take the sizes that an annotation file lacks from the images, in place."""
    images = tables.content['images']
    unknown = [x for x in images if not x.get('height') or not x.get('width')]
    paths = [tables.image_dir / image['file_name'] for image in unknown]
    sizes = check_files(image_size, paths, f'sizes in {tables.image_dir}')
    for image, (width, height) in zip(unknown, sizes, strict=True):
        image.update(width=width, height=height)
        tables.changed = True


def _find_images(
    root: Path, tables: ObjectTables, split: str, findings: Findings
) -> None:
    """Find the folder of the images, or each by the end of its name, in place."""
    images = tables.content['images']
    names = [image['file_name'] for image in images]
    tried = [tables.source.parent, root, root / 'images']
    for parent in (root, root / 'images'):
        folders = split_folders(parent)
        tried += [folders[split]] if split in folders else []
    for folder in dict.fromkeys(tried):
        if not missing_files(folder, names):
            tables.image_dir = folder
            return
    known = defaultdict(list)
    for path in list_files(root, IMAGE_SUFFIXES):
        known[PurePosixPath(path).name].append(path)
    missing = []
    for image in images:
        name = image['file_name']
        ends = _same_ends(name, known)
        if len(ends) > 1:
            raise DataError(
                f'{tables.source} lists the image {name!r}, which may be {ends[0]} or '
                f'{ends[1]} in {root}; write there which one it is.'
            )
        if not ends:
            missing.append(name)
        elif ends[0] != name:
            reason = 'images were found by the ends of their names'
            findings.add(split, reason, f'{name!r} as {ends[0]}')
        image['file_name'] = ends[0] if ends else name
    if missing:
        raise DataError(
            f'{tables.source} lists {len(names)} images; {len(missing)} of them, such '
            f'as {missing[0]!r}, are not below {root}.'
        )
    taken = Counter(image['file_name'] for image in images)
    twice = next((path for path, count in taken.items() if count > 1), None)
    if twice and len(set(names)) == len(names):
        same = [name for name, x in zip(names, images, strict=True)
                if x['file_name'] == twice]  # fmt: skip
        raise DataError(
            f'{tables.source} lists both {same[0]!r} and {same[1]!r}, but below {root} '
            f'there is only {twice}; add the other one.'
        )
    tables.image_dir, tables.changed = root, True


def _same_ends(name: str, known: dict[str, list[str]]) -> list[str]:
    """Those paths that share the most folders with the end of a name."""
    parts = [x for x in name.replace('\\', '/').split('/') if x not in ('', '.', '..')]
    paths = known.get(parts[-1], []) if parts else []

    def shared(path: str) -> int:
        return len(os.path.commonprefix([path.split('/')[::-1], parts[::-1]]))

    most = max(map(shared, paths), default=0)
    return [path for path in paths if shared(path) == most]


def _split_by_images(root: Path, whole: ObjectTables) -> dict[str, ObjectTables] | None:
    """What a file about all images says of splits: by a key, or by their folders."""
    images = whole.content['images']
    for what, values in (
        ("the key 'split'", [str(x.get('split') or '') for x in images]),
        ('a folder of a split', [_folder_of(root, whole, x) for x in images]),
    ):
        splits = [split_of(value) for value in values]
        if not any(splits):
            continue
        for image, value, split in zip(images, values, splits, strict=True):
            if split is None:
                raise DataError(
                    f'{whole.source}: of its images, {image["file_name"]!r} has '
                    f'{value!r} for {what}, others have train, val or test; all must.'
                )
        ids: dict[str, set] = {}
        for image, split in zip(images, splits, strict=True):
            ids.setdefault(split, set()).add(image['id'])
        return {split: part_of(whole, ids[split]) for split in ids}
    return None


def _folder_of(root: Path, tables: ObjectTables, image: dict) -> str:
    """The first folder below root that an image is in, but for ``images``."""
    path = os.path.relpath(tables.image_dir / image['file_name'], root)
    parts = [part for part in Path(path).parts[:-1] if part != 'images']
    return parts[0] if parts else ''


def _drop_group(tables: dict[str, ObjectTables], findings: Findings) -> None:
    """Leave out the name of all classes together, which Roboflow lists as a category.

    It has the id 0, is the supercategory of all others, and no object is of it.
    """
    for found in tables.values():
        first, *others = sorted(
            found.content['categories'], key=lambda row: str(row['id']) != '0'
        )
        group = str(first['id']) == '0' and first.get('supercategory') == 'none'
        if not others or not group:
            return
        if any(row.get('supercategory') != first['name'] for row in others):
            return
        if any(x['category_id'] == first['id'] for x in found.content['annotations']):
            return
    for split, found in tables.items():
        rows = found.content['categories']
        dropped = next(row for row in rows if str(row['id']) == '0')
        rows.remove(dropped)
        found.changed = True
        reason = "category is the name of Roboflow's group of classes and left out"
        findings.add(split, reason, f'{dropped["name"]!r}, id {dropped["id"]}')
