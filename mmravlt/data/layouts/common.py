"""What the readers of layouts share: names of splits, and the making of tables."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..base import DataError
from ..files import IMAGE_SUFFIXES, check_files, list_files
from ..findings import Findings
from ..images import image_size
from ..objects import ObjectTables
from .coco import TEST_FOR_VAL

T = TypeVar('T')

# What people call the parts of data.
SPLIT_NAMES = dict(
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
)


def split_of(name: str) -> str | None:
    """The split that a file or folder is named after: 'train', 'val' or 'test'.

    Only whole words count; a name of several splits is of none.
    """
    words = re.split('[^a-z]+', name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def split_folders(parent: Path) -> dict[str, Path]:
    """The folders in ``parent`` that are named after splits, such as ``train2017``.

    Raises:
        DataError: if two are of one split.
    """
    if not parent.is_dir():
        return {}
    folders = (path for path in sorted(parent.iterdir()) if path.is_dir())
    named = [x for x in folders if x.name.lower().rstrip('0123456789') in SPLIT_NAMES]
    return by_split(parent, named)


def by_split(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Files or folders by the splits they are named after.

    Raises:
        DataError: if two are of one split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = split_of(path.name)
        if split in found:
            raise DataError(
                f'{root} has both {found[split].name} and {path.name} for the split '
                f'{split!r}; leave one of them.'
            )
        found[split] = path
    return found


def use_splits(
    root: Path, found: dict[str, T], splits: tuple[str, ...], findings: Findings
) -> dict[str, T]:
    """The parts of data that are trained and validated on.

    Args:
        root (Path): the folder of the data, for messages.
        found (dict): what there is of 'train', 'val' and 'test'.
        splits (tuple[str]): what is needed, of 'train' and 'val'.
        findings (Findings): says so if 'test' stands in for 'val'.

    Returns:
        dict: 'train' and 'val' where they are there, so that classes can be taken from
        both, or 'all' alone if there is nothing to validate on.

    Raises:
        DataError: if 'train' is needed but not there.
    """
    used = {split: found[split] for split in ('train', 'val') if split in found}
    if 'val' not in used and 'test' in found:
        used['val'] = found['test']
        findings.add('val', TEST_FOR_VAL, str(root))
    if 'train' not in used and ('train' in splits or not used):
        raise DataError(
            f'{root} has no part for training (found: {", ".join(found) or "nothing"});'
            ' name one train.'
        )
    if 'val' not in used:
        return dict(all=used['train'])
    return used


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without space around.

    Raises:
        DataError: if it is no text.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeError) as error:
        raise DataError(f'{path} cannot be read as UTF-8 text: {error}.') from None
    return [line.strip() for line in text.split('\n')]


def read_names(path: Path) -> list[str]:
    """Read one class name per line.

    Raises:
        DataError: if it is no text, or a line is blank or there twice.
    """
    names = read_lines(path)
    while names and not names[-1]:
        names.pop()
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            raise DataError(
                f'{path}, line {i + 1}: {name!r} is '
                f'{"there twice" if name else "no name"}; each class needs a name of '
                'its own.'
            )
    return names


@dataclass
class ImageObjects:
    """An image and the objects in it.

    Attributes:
        path (Path): of the image.
        size (tuple[int, int] | None): width and height; None asks the image.
        objects (list[dict]): rows of COCO's table without ids, each with the name of
            its class as ``label``.
    """

    path: Path
    size: tuple[int, int] | None = None
    objects: list[dict] = field(default_factory=list)


def box_object(label: str, x0: float, y0: float, x1: float, y1: float) -> dict:
    """An object with a box from its edges, in pixels."""
    width, height = x1 - x0, y1 - y0
    area = max(width, 0) * max(height, 0)
    return dict(label=label, bbox=[x0, y0, width, height], area=area)


def polygon_object(label: str, parts: list[list[float]]) -> dict:
    """An object with a mask, from polygons x, y, x, y, … in pixels."""
    xs = [x for part in parts for x in part[::2]]
    ys = [y for part in parts for y in part[1::2]]
    found = box_object(label, min(xs), min(ys), max(xs), max(ys))
    found.update(area=sum(map(polygon_area, parts)), segmentation=parts)
    return found


def polygon_area(values: list[float]) -> float:
    """The area in a polygon x, y, x, y, …"""
    xs, ys = values[::2], values[1::2]
    pairs = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in pairs)) / 2


def make_tables(
    root: Path, source: Path, images: list[ImageObjects], classes: list[str]
) -> ObjectTables:
    """COCO's tables of images and the objects in them; ids count from 1.

    Args:
        root (Path): the folder of the data.
        source (Path): the file or folder that messages name.
        images (list[ImageObjects]): labels must be in ``classes``.
        classes (list[str]): names of all classes.

    Raises:
        DataError: if there are no images, one is there twice, or one whose size is
            asked cannot be read.
    """
    if not images:
        raise DataError(f'{source} lists no images.')
    paths = [image.path for image in images]
    if len(set(paths)) < len(paths):
        twice = next(path for path, n in Counter(paths).items() if n > 1)
        raise DataError(f'{source} lists {twice} twice; leave one of them.')
    unknown = [image for image in images if image.size is None]
    sizes = check_files(image_size, [x.path for x in unknown], f'sizes in {root}')
    for image, size in zip(unknown, sizes, strict=True):
        image.size = size
    below = all(path.is_relative_to(root) for path in paths)
    image_dir = root if below else Path(os.path.commonpath([p.parent for p in paths]))
    category = {name: i for i, name in enumerate(classes, 1)}
    content: dict[str, list[dict]] = dict(images=[], annotations=[], categories=[])
    content['categories'] = [dict(id=i, name=name) for name, i in category.items()]
    rows = content['annotations']
    for i, image in enumerate(images, 1):
        width, height = image.size
        name = image.path.relative_to(image_dir).as_posix()
        content['images'].append(dict(id=i, file_name=name, width=width, height=height))
        for found in image.objects:
            place = dict(id=len(rows) + 1, image_id=i, iscrowd=0)
            place['category_id'] = category[found.pop('label')]
            rows.append({**place, **found})
    return ObjectTables(source, image_dir, content, changed=True)


def note_unlabelled(
    split: str, folder: Path, every: Iterable[ImageObjects], findings: Findings
) -> None:
    """Count the images in a folder of which nothing is known, not even that they
    are empty.

    Args:
        split (str): of the folder.
        folder (Path): all images below it are looked at.
        every (Iterable[ImageObjects]): the images of all splits.
        findings (Findings): they are counted there.
    """
    known = {image.path for image in every}
    for name in list_files(folder, IMAGE_SUFFIXES):
        if folder / name not in known:
            reason = 'images have no file of labels and are left out'
            findings.add(split, reason, str(folder / name))


def check_labels(
    images: Iterable[ImageObjects], classes: list[str] | None, listed: Path | None
) -> list[str]:
    """The classes of data that labels objects by name.

    Args:
        images (Iterable[ImageObjects]): of all splits.
        classes (list[str] | None): in the order of a list; None sorts those that occur.
        listed (Path | None): the file with that list.

    Raises:
        DataError: if an object is of a class that the list lacks.
    """
    first = {found['label']: x.path for x in images for found in x.objects}
    if classes is None:
        return sorted(first)
    for label, path in first.items():
        if label not in classes:
            raise DataError(
                f'{path} has an object of the class {label!r}, which is not in '
                f'{listed}; correct one of them.'
            )
    return classes
