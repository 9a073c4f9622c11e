"""Pascal VOC's layout for segmentation, which CVAT exports too."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..base import DataError
from ..files import IMAGE_SUFFIXES, list_files, need_folder
from ..listing import Listing, odd_part
from ..maps import IGNORED, MapValues
from . import Layout
from .class_names import (
    find_colours,
    find_names,
    read_classes,
    read_colours,
    read_lines,
)
from .index_maps import ignored_names
from .map_folders import choose_map
from .split_folders import by_split, choose_parts

LISTS = 'ImageSets/Segmentation'

CLASSES = (
    *('background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car'),
    *('cat', 'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person'),
    *('pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'),
)
BORDER = (224, 224, 192)  # around objects; 255 in maps of indices
_IMAGE_OF_VOC = re.compile(r'\d{4}_\d{6}')


def find_voc_maps(root: Path) -> str | None:
    """Why a folder is taken for VOC's, or None."""
    lists = sorted((root / LISTS).glob('*.txt'))
    maps = (root / 'SegmentationClass').is_dir()
    return str(lists[0].relative_to(root)) if lists and maps else None


def read_voc_maps(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read the images that ``ImageSets/Segmentation/{train,val}.txt`` list.

    Raises:
        DataError: if a list names what is not there, or nothing names the classes.
    """
    image_dir, map_dir = root / 'JPEGImages', root / 'SegmentationClass'
    need_folder(image_dir)
    images, maps = _by_stem(image_dir), _by_stem(map_dir)
    lists = sorted((root / LISTS).glob('*.txt'))
    parts = by_split(lists)
    others = [path for path in lists if path not in parts.values()]
    if others and not parts.keys() & {'train', 'val'}:
        parts = dict(all=others[0])  # trainval.txt, or default.txt of CVAT
    elif 'train' in splits and 'train' not in parts:
        raise DataError(
            f'{root / LISTS} must hold train.txt; it lists training images.'
        )
    listings = {}
    for split, (part, listed) in choose_parts(parts, splits).items():
        pairs = []
        for i, line in enumerate(read_lines(listed), 1):
            stem = line.strip().strip('"')
            if not stem:
                continue
            if stem not in images and stem.lower().endswith(IMAGE_SUFFIXES):
                stem = stem[: stem.rindex('.')]
            label_map = choose_map(map_dir, maps.get(stem, []))
            found = images.get(stem, [])
            if len(found) != 1 or label_map is None:
                raise DataError(
                    f'{listed} lists {stem!r} on line {i}; there must be one image of '
                    f'that name in {image_dir} (it has {len(found)}) and one map in '
                    f'{map_dir} (it has {0 if label_map is None else 1}); add what is '
                    'missing or take the line out.'
                )
            pairs.append((image_dir / found[0], map_dir / label_map))
        if not pairs:
            raise DataError(f'{listed} lists no images.')
        classes, values, odd = _read_values(root, pairs)
        odd += odd_part(part, pairs)
        listings[split] = Listing(listed, pairs, classes, values, odd)
    return listings


def _read_values(root: Path, pairs: list) -> tuple[tuple[str, ...], MapValues, list]:
    """The classes, and what the values in the maps mean."""
    table, names = find_colours(root), find_names(root)
    if table:
        classes, values, ignored = read_colours(table)
        colours = {BORDER: IGNORED, **values.colours}
        return classes, replace(values, colours=colours), ignored_names(table, ignored)
    if names:
        classes = read_classes(names)
    elif all(_IMAGE_OF_VOC.fullmatch(image.stem) for image, _ in pairs):
        classes = CLASSES
    else:
        raise DataError(
            f'{root} does not name its classes; write one name per line into '
            'classes.txt, in the order of the indices, or add the labelmap.txt of '
            'CVAT. (Images of Pascal VOC itself have names such as 2007_000032.)'
        )
    named_in = names.name if names else 'classes.txt'
    return classes, MapValues(range(len(classes)), named_in=named_in), []


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """Names of images by themselves without suffix."""
    found: dict[str, list[str]] = {}
    for name in list_files(folder, IMAGE_SUFFIXES):
        found.setdefault(name[: name.rindex('.')], []).append(name)
    return found


VOC_MAPS = Layout(
    name='Pascal VOC',
    described='JPEGImages, SegmentationClass and '
    'ImageSets/Segmentation/{train,val}.txt, with classes.txt or labelmap.txt',
    find=find_voc_maps,
    read=read_voc_maps,
)
