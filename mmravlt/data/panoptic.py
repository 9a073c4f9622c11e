"""Data for panoptic segmentors: COCO's panoptic folders."""

from __future__ import annotations

from functools import partial
from numbers import Real
from pathlib import Path

from PIL import Image

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once
from .files import check_files, need_folder
from .images import inspect_images, unreadable
from .layouts.coco import (
    CATEGORIES,
    IMAGES,
    check_row,
    find_annotations,
    find_image_dir,
    missing_files,
    read_tables,
)

MAPS = dict(image_id=int | str, file_name=str, segments_info=list)
SEGMENTS = dict(id=int, category_id=int | str, bbox=list, area=Real, iscrowd=int)
MAX_CLASSES = 255  # mmdet takes 255 for pixels of no class


def prepare_panoptic(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check a folder in COCO's panoptic layout.

    Args:
        root (Path): holds ``annotations/panoptic_{train,val}*.json``, beside each a
            folder of the same name with one PNG per image, whose colours are the ids
            of segments, and, beside ``annotations``, the folders of images.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: with ``things``; each split has ``ann_file``, ``image_dir``,
        ``map_dir`` and the number of ``images``.

    Raises:
        DataError: says what was looked for and where, or what is wrong.
    """
    return prepare_once(root, 'panoptic', options, partial(_prepare, root, options))


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    read = {split: _read_split(root, split, options.check) for split in options.splits}
    (first, classes, things, _), *others = read.values()
    for other, other_classes, other_things, _ in others:
        for name, one, two in (
            ('categories', classes, other_classes),
            ('things', classes[:things], other_classes[:other_things]),
        ):
            if one != two:
                raise DataError(
                    f'{first["ann_file"]} and {other["ann_file"]} must list the same '
                    f'{name} in the same order, but one has {one} and the other {two}.'
                )
    splits = {split: found for split, (found, *_) in read.items()}
    paths = [path for *_, images in read.values() for path in images]
    _, notes, bit_depth = inspect_images(paths, f'images in {root}', options)
    return Prepared('COCO panoptic', classes, splits, notes, bit_depth, things)


def _read_split(
    root: Path, split: str, check: bool
) -> tuple[dict, list[str], int, list[Path]]:
    """Find and check one split of a panoptic folder.

    Args:
        root (Path): the folder that holds ``annotations``.
        split (str): 'train' or 'val'.
        check (bool): whether files are opened.

    Returns:
        tuple: what :func:`prepare_panoptic` says of a split, the classes, how many of
        these are things, and the images.

    Raises:
        DataError: says what was looked for and where, or what is wrong.
    """
    ann_file = find_annotations(root, 'panoptic', split)
    categories = dict(CATEGORIES, isthing=int)
    layout = dict(images=IMAGES, annotations=MAPS, categories=categories)
    content = read_tables(ann_file, layout)
    classes, num_things = _read_classes(ann_file, content['categories'])
    maps = _pair_maps(ann_file, content)
    _check_segments(ann_file, content)
    things = {row['id'] for row in content['categories'] if row['isthing']}
    segments = [s for row in content['annotations'] for s in row['segments_info']]
    if split == 'train' and not any(
        s['category_id'] in things and not s['iscrowd'] for s in segments
    ):
        raise DataError(
            f'{ann_file} has no segments of things but crowds, so nothing can be '
            'learnt; mmdet leaves out images without things.'
        )
    images = {image['file_name']: image for image in content['images']}
    image_dir = find_image_dir(root, ann_file, split, list(images))
    map_dir = ann_file.with_suffix('')
    need_folder(map_dir, 'of PNG maps')
    missing = missing_files(map_dir, [row['file_name'] for row in maps.values()])
    if missing:
        raise DataError(
            f'{ann_file} lists {len(maps)} maps; {len(missing)} of them, such as '
            f'{missing[0]!r}, are not in {map_dir}.'
        )
    if check:
        pairs = [(map_dir, images[name], row) for name, row in maps.items()]
        check_files(lambda pair: _check_map(*pair), pairs, f'maps in {map_dir}')
    found = dict(
        ann_file=str(ann_file),
        image_dir=str(image_dir),
        map_dir=str(map_dir),
        images=len(images),
    )
    return found, classes, num_things, [image_dir / name for name in images]


def _read_classes(ann_file: Path, categories: list[dict]) -> tuple[list[str], int]:
    """The names of all classes, things first, and how many of them are things."""
    names = [row['name'] for row in categories]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f'{ann_file} names the category {name!r} twice, but mmdet finds '
                'categories by their names; give each a name of its own.'
            )
    things = tuple(row['name'] for row in categories if row['isthing'])
    stuff = tuple(row['name'] for row in categories if not row['isthing'])
    if not things or not stuff:
        raise DataError(
            f'{ann_file} has {len(things)} categories of things (isthing is 1) and '
            f'{len(stuff)} of stuff (0), but a panoptic segmentor needs both; use a '
            'detector for things alone, a semantic segmentor for stuff alone.'
        )
    if (*things, *stuff) != tuple(names):
        raise DataError(
            f'{ann_file} lists the stuff {stuff[0]!r} before the last of its things, '
            f'{things[-1]!r}, but mmdet numbers things first; put all categories with '
            'isthing 1 before the others.'
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f'{ann_file} has {len(names)} categories; mmdet tells at most '
            f'{MAX_CLASSES} apart.'
        )
    return names, len(things)


def _pair_maps(ann_file: Path, content: dict) -> dict[str, dict]:
    """The row in 'annotations' of each image, by the name of the image.

    mmdet looks for the map of an image by its name alone.
    """
    rows = {row['image_id']: row for row in content['annotations']}
    if len(rows) < len(content['annotations']):
        raise DataError(f'{ann_file} has two maps for one image; there must be one.')
    unknown = rows.keys() - {image['id'] for image in content['images']}
    if unknown:
        raise DataError(
            f'{ann_file} has a map with image_id {min(unknown, key=str)!r}, which is '
            "not in 'images'."
        )
    pairs = {}
    for image in content['images']:
        name, row = image['file_name'], rows.get(image['id'])
        if not name.endswith(('.jpg', '.png')) or Path(name).name != name:
            raise DataError(
                f'{ann_file} lists the image {name!r}; mmdet needs names that end in '
                '.jpg or .png, without folders in them.'
            )
        if row is None:
            raise DataError(f'{ann_file} has no map for the image {name!r}.')
        expected = name.replace('.jpg', '.png')
        if row['file_name'] != expected:
            raise DataError(
                f'{ann_file} says that the map of {name!r} is {row["file_name"]!r}, '
                f'but mmdet looks for {expected!r}; rename it.'
            )
        pairs[name] = row
    return pairs


def _check_segments(ann_file: Path, content: dict) -> None:
    """Each segment must have a box, a known category and an id that fits a colour."""
    categories = {row['id'] for row in content['categories']}
    for row in content['annotations']:
        for i, segment in enumerate(row['segments_info']):
            place = f'segments_info[{i}] of {row["file_name"]!r}'
            check_row(ann_file, place, segment, SEGMENTS)
            if segment['category_id'] not in categories:
                raise DataError(
                    f'{ann_file}: {place} has category_id '
                    f"{segment['category_id']!r}, which is not in 'categories'."
                )
            if not 0 < segment['id'] < 256**3:
                raise DataError(
                    f'{ann_file}: {place} has the id {segment["id"]}; give one from 1 '
                    f'to {256**3 - 1}, which three bytes hold.'
                )
            box = segment['bbox']
            if len(box) != 4 or not all(isinstance(x, Real) for x in box):
                raise DataError(
                    f'{ann_file}: {place} has bbox {box!r}; give [x, y, width, height].'
                )


def _check_map(map_dir: Path, image: dict, row: dict) -> None:
    """The colours of a map must be the segments that its row lists."""
    path = map_dir / row['file_name']
    try:
        with Image.open(path) as opened:
            mode, size = opened.mode, opened.size
            colours = opened.getcolors(256**2) if mode == 'RGB' else None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(path, error) from None
    if mode != 'RGB' or colours is None:
        raise DataError(
            f'{path} is no map of segments (mode {mode}); save a PNG in RGB, whose '
            'pixels are R + 256 G + 65536 B = the id of their segment, or black.'
        )
    if size != (image['width'], image['height']):
        raise DataError(
            f'{path} is {size[0]}×{size[1]} pixels, but its image is '
            f'{image["width"]}×{image["height"]}; a map needs the size of its image.'
        )
    ids = {r + 256 * g + 256**2 * b for _, (r, g, b) in colours} - {0}
    listed = [segment['id'] for segment in row['segments_info']]
    if len(listed) > len(set(listed)) or ids != set(listed):
        twice = {i for i in listed if listed.count(i) > 1}
        odd = ids.symmetric_difference(listed) or twice
        raise DataError(
            f'{path} and its segments_info must have the same ids, each once there; '
            f'{min(odd)} is not so.'
        )
