"""LabelMe: a JSON file beside each image, with the shapes drawn there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from ..base import DataError
from ..files import IMAGE_SUFFIXES, check_files, list_files, visible
from ..findings import Findings
from ..objects import ObjectTables
from . import Layout
from .common import (
    ImageObjects,
    box_object,
    check_labels,
    make_tables,
    note_unlabelled,
    polygon_object,
    read_names,
    split_folders,
    use_splits,
)

CIRCLE_CORNERS = 64  # of the polygon that stands for a circle
OPENED = 3  # JSON files in a folder, to see whether they are LabelMe's
NO_CLASSES = ('__ignore__', '_background_')  # LabelMe's own, in labels.txt


def find_labelme(root: Path) -> str | None:
    """The first JSON file that is LabelMe's, or None."""
    folders = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    for folder in folders:
        for path in sorted(visible(folder, '*.json'))[:OPENED]:
            try:
                text = path.read_text(encoding='utf-8-sig')
                if '"shapes"' in text and _is_labelme(json.loads(text)):
                    return str(path.relative_to(root))
            except (OSError, ValueError):
                continue
    return None


def read_labelme(
    root: Path, splits: tuple[str, ...], findings: Findings
) -> dict[str, ObjectTables]:
    """Read JSON files and the images that they name.

    Polygons and circles become masks; those of one label and one ``group_id`` in an
    image are parts of one object. Rectangles become boxes.

    Args:
        root (Path): holds JSON files and images, in a folder for each split or not.
        splits (tuple[str]): of 'train' and 'val'.
        findings (Findings): what was left out.

    Raises:
        DataError: names the file that is wrong.
    """
    folders = split_folders(root)
    files = {
        split: [folder / name for name in list_files(folder, ('.json',))]
        for split, folder in folders.items()
    }
    files = {split: paths for split, paths in files.items() if paths}
    every = [root / name for name in list_files(root, ('.json',))]
    if files:
        found = use_splits(root, files, splits, findings)
        inside = {path for paths in files.values() for path in paths}
        outside = [path for path in every if path not in inside]
        if outside:
            reason = 'JSON files are in no folder of a split and are left out'
            findings.add('all', reason, str(outside[0]), len(outside))
    else:
        found = dict(all=every)
    read = {}
    for split, paths in found.items():
        pairs = check_files(_read_file, paths, f'files of labels of {split}')
        read[split] = [image for image, _ in pairs]
        for path, (_, kinds) in zip(paths, pairs, strict=True):
            for kind in kinds:
                reason = f'shapes are of the type {kind} and left out'
                findings.add(split, reason, str(path))
    images = [image for part in read.values() for image in part]
    for split in read:
        note_unlabelled(split, folders.get(split, root), images, findings)
    listed = next(
        (root / x for x in ('labels.txt', 'classes.txt') if (root / x).is_file()), None
    )
    names = [x for x in read_names(listed) if x not in NO_CLASSES] if listed else None
    classes = check_labels(images, names, listed)
    return {
        split: make_tables(root, folders.get(split, root), part, classes)
        for split, part in read.items()
        if split in ('all', *splits)
    }


LABELME = Layout(
    name='LabelMe',
    described='a JSON file with shapes beside each image, in train/ and val/ or not',
    find=find_labelme,
    read=read_labelme,
)


def _is_labelme(content) -> bool:
    """Whether it has what LabelMe writes."""
    return (
        isinstance(content, dict)
        and isinstance(content.get('shapes'), list)
        and isinstance(content.get('imagePath'), str)
    )


def _read_file(path: Path) -> tuple[ImageObjects, list[str]]:
    """Read the shapes in one image, and of which types those are that are left out."""
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read as JSON: {error}.') from None
    if not _is_labelme(content):
        raise DataError(
            f"{path} is not of LabelMe: it lacks 'shapes' or 'imagePath'; remove it."
        )
    width, height = content.get('imageWidth'), content.get('imageHeight')
    size = (width, height) if _is_side(width) and _is_side(height) else None
    left_out: list[str] = []
    objects = list(_read_shapes(path, content['shapes'], left_out))
    return ImageObjects(_find_image(path, content), size, objects), left_out


def _is_side(value) -> bool:
    return isinstance(value, int) and value > 0


def _find_image(path: Path, content: dict) -> Path:
    """The image that a file is about."""
    name = content['imagePath'].replace('\\', '/')
    places = [path.parent / name, path.parent / Path(name).name]
    if Path(name).is_absolute():
        places.reverse()  # what was copied here goes before where it was
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]
    places += [path.with_suffix(x) for x in suffixes]
    for image in places:
        if image.is_file():
            return Path(os.path.normpath(image))
    embedded = '; it is embedded as imageData, so write it there from LabelMe'
    raise DataError(
        f'{path} is about the image {name!r}, which is not in {path.parent}'
        f'{embedded if content.get("imageData") else ""}.'
    )


def _read_shapes(path: Path, shapes: list, left_out: list[str]) -> Iterator[dict]:
    """The objects that shapes are, or are parts of."""
    groups: dict[tuple, list[list[float]]] = {}
    for number, shape in enumerate(shapes):
        place = f'{path}: shapes[{number}]'
        label = shape.get('label') if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise DataError(f'{place} has the label {label!r}; name its class.')
        label, kind = label.strip(), shape.get('shape_type') or 'polygon'
        if kind not in ('polygon', 'rectangle', 'circle'):
            left_out.append(str(kind))
            continue
        points = shape.get('points')
        fine = isinstance(points, list) and points and all(map(_is_point, points))
        if not fine:
            raise DataError(f'{place} has the points {str(points)[:80]}; give x and y.')
        if kind == 'rectangle':
            xs, ys = zip(*points, strict=True)
            if len(points) not in (2, 4):
                raise DataError(
                    f'{place} is a rectangle of {len(points)} points; give 2 or 4.'
                )
            yield box_object(label, min(xs), min(ys), max(xs), max(ys))
            continue
        if kind == 'circle':
            if len(points) != 2:
                raise DataError(
                    f'{place} is a circle of {len(points)} points; give its centre and '
                    'one on it.'
                )
            points = _circle(*points)
        group = shape.get('group_id')
        key = (number,) if group is None else (label, str(group))
        groups.setdefault((label, key), []).append([x for xy in points for x in xy])
    for (label, _), parts in groups.items():
        yield polygon_object(label, parts)


def _is_point(point) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(x, int | float) and math.isfinite(x) for x in point)
    )


def _circle(centre: list[float], edge: list[float]) -> list[list[float]]:
    """Points on a circle, with those farthest left, right, up and down."""
    radius = math.dist(centre, edge)
    angles = [2 * math.pi * i / CIRCLE_CORNERS for i in range(CIRCLE_CORNERS)]
    x, y = centre
    return [[x + radius * math.cos(a), y + radius * math.sin(a)] for a in angles]
