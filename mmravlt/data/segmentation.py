"""Data for segmentors: images and maps of class indices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once
from .files import IMAGE_SUFFIXES, check_files, list_files, need_folder, refuse_hidden
from .images import ImageInfo, inspect_images, unreadable

IGNORED = 255  # what mmseg takes for pixels of no class


@dataclass
class Layout:
    """How a folder names its splits and what the values in its maps mean.

    Attributes:
        train (str): name of the training split's folders.
        val (str): name of the validation split's folders.
        classes (range): values of pixels that belong to a class.
        ignored (tuple[int]): values of pixels that belong to none.
        image_suffixes (tuple[str]): in lower case.
    """

    train: str
    val: str
    classes: range
    ignored: tuple[int, ...]
    image_suffixes: tuple[str, ...]


ADE20K = Layout('training', 'validation', range(1, 151), (0, IGNORED), ('.jpg',))


def prepare_maps(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check images and maps of class indices.

    Args:
        root (Path): holds ``images/{train,val}``, ``annotations/{train,val}``
            with one PNG per image, of the same name up to the suffix, whose
            pixels are class indices or 255 (ignored), and ``classes.txt`` with
            one class name per line. Or it is ADE20K as that is distributed:
            ``images/{training,validation}`` and ``annotations/{training,validation}``,
            values 0 (other) to 150.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: each split has ``image_dir``, ``map_dir``, the ``suffixes`` of the
        images and their number, ``images``. The layout is 'ADE20K' or 'index maps';
        the former names no classes.

    Raises:
        DataError: says what is wrong and what to do.
    """
    return prepare_once(root, 'segmentation', options, partial(_prepare, root, options))


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    if not (root / 'classes.txt').exists() and (root / 'images/validation').is_dir():
        name, classes, layout = 'ADE20K', (), ADE20K
    else:
        need_folder(root / 'images')
        classes = read_classes(root / 'classes.txt')
        name = 'index maps'
        layout = Layout('train', 'val', range(len(classes)), (IGNORED,), IMAGE_SUFFIXES)
    splits, pairs = {}, {}
    for split in options.splits:
        splits[split], pairs[split] = find_split(root, getattr(layout, split), layout)
    images = [image for found in pairs.values() for image, _ in found]
    infos, notes, bit_depth = inspect_images(images, f'images in {root}', options)
    for split in options.splits if options.check else ():
        check_maps(pairs[split], infos, layout, training=split == 'train')
    return Prepared(name, list(classes), splits, notes, bit_depth)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read one class name per line.

    Raises:
        DataError: if the file is missing, is no text, or names fewer than two
            classes, one of them twice, or none on a line before the last.
    """
    if not path.is_file():
        raise DataError(
            f'{path} is missing; write one class name per line into it, in the order '
            'of the class indices.'
        )
    try:
        lines = path.read_text(encoding='utf-8-sig').rstrip().splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f'{path} cannot be read as UTF-8 text: {error}.') from None
    names = [line.strip() for line in lines]
    for i, name in enumerate(names):
        if not name:
            raise DataError(
                f'{path}: line {i + 1} is blank, but stands for the class with index '
                f'{i}; name it or take the line out.'
            )
        if name in names[:i]:
            raise DataError(
                f'{path} names {name!r} twice, on lines {names.index(name) + 1} and '
                f'{i + 1}; each class needs a name of its own.'
            )
    if not 2 <= len(names) <= IGNORED:
        raise DataError(
            f'{path} names {len(names)} classes; a segmentor tells 2 to {IGNORED} '
            "classes apart (what is no object is a class too, such as 'background')."
        )
    return tuple(names)


def find_split(
    root: Path, split: str, layout: Layout
) -> tuple[dict, list[tuple[Path, Path]]]:
    """Find the images and the maps of one split.

    Args:
        root (Path): the folder that holds ``images`` and ``annotations``.
        split (str): name of a folder in both.
        layout (Layout): what is expected of them.

    Returns:
        tuple: what :func:`prepare_maps` says of a split, and each image with its map.

    Raises:
        DataError: names the first file that lacks its partner.
    """
    image_dir, map_dir = root / 'images' / split, root / 'annotations' / split
    need_folder(image_dir)
    need_folder(map_dir)
    refuse_hidden(image_dir, layout.image_suffixes)  # mmseg lists files by itself
    images: dict[str, str] = {}  # by the name of the map that belongs to it
    for image in list_files(image_dir, layout.image_suffixes):
        name = str(PurePosixPath(image).with_suffix('.png'))
        if name in images:
            raise DataError(
                f'{image_dir} has both {images[name]} and {image}, which share the map '
                f'{name}; rename one of them.'
            )
        images[name] = image
    if not images:
        raise DataError(
            f'{image_dir} has no images ({", ".join(layout.image_suffixes)}).'
        )
    maps = list_files(map_dir, ('.png',))
    without_map = sorted(images.keys() - set(maps))
    if without_map:
        raise DataError(
            f'{len(without_map)} of {len(images)} images in {image_dir}, such as '
            f'{images[without_map[0]]}, have no map in {map_dir} (there it would be '
            f'{without_map[0]}); add the maps or remove the images.'
        )
    without_image = sorted(set(maps) - images.keys())
    if without_image:
        raise DataError(
            f'{len(without_image)} of {len(maps)} maps in {map_dir}, such as '
            f'{without_image[0]}, have no image in {image_dir}; add the images or '
            'remove the maps.'
        )
    found = dict(
        image_dir=str(image_dir),
        map_dir=str(map_dir),
        suffixes=sorted({PurePosixPath(image).suffix for image in images.values()}),
        images=len(images),
    )
    return found, [(image_dir / images[name], map_dir / name) for name in maps]


def check_maps(
    pairs: list[tuple[Path, Path]],
    infos: dict[Path, ImageInfo],
    layout: Layout,
    training: bool,
) -> None:
    """Check the maps of one split.

    Args:
        pairs (list[tuple[Path, Path]]): each image with its map.
        infos (dict[Path, ImageInfo]): of each image.
        layout (Layout): what is expected of the maps.
        training (bool): whether several classes are needed.

    Raises:
        DataError: names the first map that is not as it should be.
    """
    map_dir = Path(os.path.commonpath([label_map.parent for _, label_map in pairs]))
    values = check_files(
        lambda pair: _check_map(pair[1], pair[0], infos[pair[0]], layout),
        pairs,
        f'maps in {map_dir}',
    )
    labelled = set().union(*values) - set(layout.ignored)
    if len(labelled) < (2 if training else 1):
        held = f'only class {min(labelled)}' if labelled else 'no class at all'
        raise DataError(
            f'The maps in {map_dir} hold {held} besides ignored pixels, so nothing '
            f'can be learnt or scored; {IGNORED} means ignored, so a mask of 0 and '
            '255 has to be saved as 0 and 1.'
        )


def _check_map(
    label_map: Path, image: Path, info: ImageInfo, layout: Layout
) -> set[int]:
    """Check the map of an image; return the values in it."""
    width, height = info.width, info.height
    try:
        with Image.open(label_map) as opened:
            mode, size = opened.mode, opened.size
            # counts of 0 to 255; what they stand for in mode 'P' is left aside
            counts = opened.histogram() if mode in ('L', 'P') else None
            pixels = None if counts else np.array(opened)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(label_map, error) from None
    if counts is None and pixels.ndim != 2:
        raise DataError(
            f'{label_map} is an image in colour ({mode}); save one channel that holds '
            'the class indices.'
        )
    if size != (width, height):
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels, but its image {image} is '
            f'{width}×{height}; a map needs the size of its image.'
        )
    if min(size) < 2:
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels; mmseg needs at least 2×2, so '
            'remove the map and its image.'
        )
    found = np.flatnonzero(counts) if counts else np.unique(pixels)
    values = {int(value) for value in found}
    unknown = values - set(layout.classes) - set(layout.ignored)
    if unknown:
        raise DataError(
            f'{label_map} holds the value {min(unknown)}, but the classes are '
            f'{layout.classes[0]} to {layout.classes[-1]} and '
            f'{" and ".join(map(str, layout.ignored))} ignored; correct the map, or '
            'add a class to classes.txt if it lacks one.'
        )
    return values
