"""COCO's table of images, against the files that it lists."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from .base import DataError
from .cache import write_text
from .files import IMAGE_SUFFIXES, check_files
from .findings import Findings
from .images import ImageInfo, inspect_image


@dataclass
class ImageTables:
    """A split of images as COCO's tables, whatever they hold of each.

    Attributes:
        source (Path): the file or folder that messages name.
        image_dir (Path): from which the names of images start.
        content (dict): COCO's tables, ``images``, ``annotations`` and ``categories``.
        changed (bool): whether ``source`` says something else, or is no file of COCO.
    """

    source: Path
    image_dir: Path
    content: dict
    changed: bool = False

    @property
    def paths(self) -> list[Path]:
        """Of the images."""
        return [self.image_dir / image['file_name'] for image in self.content['images']]

    def save(self, path: Path) -> dict:
        """What training reads: ``source``, or a file with what was changed."""
        if self.changed:
            write_text(path, json.dumps(self.content))
        return dict(
            ann_file=str(path if self.changed else self.source),
            image_dir=str(self.image_dir),
            images=len(self.content['images']),
        )


SMALLEST = 32  # filter_cfg.min_size in mmdet's configs


def read_sizes(tables: ImageTables, infos: dict[Path, ImageInfo]) -> list:
    """The sizes of the files, as :func:`check_sizes` takes them.

    Args:
        tables (ImageTables): of a split.
        infos (dict): of the files that were opened; of the others, those are whose
            size is missing or 0.

    Raises:
        DataError: for the first file that cannot be read.
    """
    paths, images = tables.paths, tables.content['images']
    needed = [
        path
        for path, image in zip(paths, images, strict=True)
        if path not in infos and not _has_size(image)
    ]
    opened = check_files(inspect_image, needed, f'images in {tables.image_dir}')
    known = {**infos, **dict(zip(needed, opened, strict=True))}
    found = map(known.get, paths)
    return [info and ((info.width, info.height), info.stored) for info in found]


def _has_size(image: dict) -> bool:
    """Whether width and height are given; some tools write 0 for unknown."""
    return all(image.get(key) not in (None, 0) for key in ('width', 'height'))


def check_sizes(
    source: Path, images: list[dict], sizes: list, split: str, findings: Findings
) -> bool:
    """Check ``width`` and ``height`` of COCO's images against their files.

    What is missing or 0 is taken from the files, in place.

    Args:
        source (Path): the file or folder that messages name.
        images (list[dict]): COCO's table.
        sizes (list): of each image, ``(shown, stored)``: width and height as it is
            shown, and as it is stored, where EXIF turns it; None where its file was
            not opened.
        split (str): 'train' or 'val'.
        findings (Findings): counts what was taken from the files.

    Returns:
        bool: whether something was.

    Raises:
        DataError: for the first image whose file is of another size.
    """
    changed = False
    for image, size in zip(images, sizes, strict=True):
        if size is None:
            continue
        shown, stored = size
        said = (image.get('width'), image.get('height'))
        if said == shown and type(said[0]) is type(said[1]) is int:
            continue
        if _has_size(image) and said != shown:
            _refuse(f'{source}: the image {image["file_name"]!r}', said, shown, stored)
        reason = (
            'images have no whole numbers for width and height, taken from the file'
        )
        findings.add(split, reason, f'{image["file_name"]!r}: {said[0]!r}×{said[1]!r}')
        image['width'], image['height'] = map(int, shown)
        changed = True
    return changed


def _refuse(place: str, said: tuple, shown: tuple, stored: tuple) -> None:
    """Raise the error for an image whose file is of another size."""
    text = (
        f'{place} is {said[0]}×{said[1]} pixels there, but its file is '
        f'{shown[0]}×{shown[1]}'
    )
    if said == stored:
        raise DataError(
            f'{text} when it is turned as its EXIF orientation says, which training '
            'does; save it turned and without EXIF, and turn its annotations, too.'
        )
    if said == shown[::-1]:
        raise DataError(f'{text}; width and height have changed places.')
    raise DataError(
        f'{text}; scale its annotations with the image, or use the image that was '
        'annotated.'
    )


def check_size_types(source: Path, images: list[dict]) -> None:
    """Raise DataError for an image whose size is neither missing nor two numbers."""
    for image in images:
        for key in ('width', 'height'):
            value = image.get(key)
            if value is not None and not isinstance(value, Real):
                raise DataError(
                    f'{source}: the image {image["file_name"]!r} has {key} {value!r}; '
                    'give pixels.'
                )


def check_small(
    source: Path, images: list[dict], split: str, findings: Findings
) -> set:
    """Count images that training leaves out because they are small.

    Args:
        source (Path): the file or folder that messages name.
        images (list[dict]): COCO's table.
        split (str): 'train' or 'val'; small images are scored like others.
        findings (Findings): counts them.

    Returns:
        set: their ids.

    Raises:
        DataError: if no others are left.
    """
    if split != 'train':
        return set()
    small = [x for x in images if min(x['width'], x['height']) < SMALLEST]
    if small:
        example = '{file_name!r}: {width}×{height}'.format(**small[0])
        reason = (
            f'images are below {SMALLEST} pixels on a side; training leaves them out'
        )
        findings.add(split, reason, example, len(small))
    if len(small) == len(images):
        findings.refuse(split, f'{source} has no image that can be learnt from.')
    return {image['id'] for image in small}


def check_twice(source: Path, images: list[dict]) -> None:
    """Raise DataError if a file is listed twice."""
    seen: dict[str, object] = {}
    for image in images:
        name = os.path.normpath(image['file_name'])
        if name in seen:
            raise DataError(
                f'{source} lists the image {name!r} twice, with the ids {seen[name]!r} '
                f'and {image["id"]!r}; list it once, with all that it shows.'
            )
        seen[name] = image['id']


def check_shared(tables: dict[str, ImageTables], findings: Findings) -> None:
    """Count the files that are used for training and for validation.

    Args:
        tables (dict): by 'train' and 'val'.
        findings (Findings): counts them.
    """
    files = []
    for part in tables.values():
        folder = os.path.realpath(part.image_dir)
        names = (image['file_name'] for image in part.content['images'])
        paths = [os.path.join(folder, name) for name in names]
        files.append({os.path.normpath(path) for path in paths})
    shared = sorted(set.intersection(*files)) if len(files) > 1 else []
    if shared:
        reason = 'images are for training, too, so scores say little about new ones'
        findings.add('val', reason, shared[0], len(shared))


def count_unlisted(tables: dict[str, ImageTables], findings: Findings) -> None:
    """Count images that lie beside those that are listed, but are in no list.

    Args:
        tables (dict): of all splits, as for :func:`check_shared`.
        findings (Findings): counts them.
    """
    listed: dict[str, set[str]] = {}
    split_of: dict[str, str] = {}
    for split, part in tables.items():
        for path in part.paths:
            folder, name = os.path.split(path)
            folder = os.path.normpath(folder)
            listed.setdefault(folder, set()).add(name)
            split_of.setdefault(folder, split)
    for folder, names in listed.items():
        others = sorted(
            name
            for name in set(os.listdir(folder)) - names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')
        )
        if others:
            reason = 'images are in no list, and are not used'
            example = os.path.join(folder, others[0])
            findings.add(split_of[folder], reason, example, len(others))
