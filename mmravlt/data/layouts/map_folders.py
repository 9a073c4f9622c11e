"""Folders with images and with maps, and which map belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..base import DataError
from ..files import IMAGE_SUFFIXES, list_files, need_folder
from ..listing import count_other_files
from .split_folders import split_folders

# In lower case; case does not matter.
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages')
MAP_FOLDERS = (
    *('annotations', 'annotation', 'labels', 'label', 'masks', 'mask', 'gt'),
    'segmentationclass',
)
# What follows the name of a split in that of the folder of its maps
MAP_ENDINGS = ('_labels', '_masks', '_annotations', '_label', '_mask', '_gt', 'annot')

# How the names of an image and of its map may end, before the suffix
TAILS = (
    *(('', ''), ('', '_mask'), ('_image', '_mask'), ('_img', '_mask')),
    *(('_sat', '_mask'), ('', '_label'), ('_image', '_label'), ('_rgb', '_label')),
    *(('', '_labels'), ('', '_gt'), ('', '_seg'), ('', '_l')),
    ('', '_labeltrainids'),  # of COCO-Stuff
    ('_leftimg8bit', '_gtfine_labeltrainids'),
    ('_leftimg8bit', '_gtfine_labelids'),
)
LOSSY_SUFFIXES = ('.jpg', '.jpeg', '.webp')
MAP_SUFFIXES = tuple(s for s in IMAGE_SUFFIXES if s not in LOSSY_SUFFIXES)

Pairs = list[tuple[Path, Path]]
Oddities = list[tuple[str, str, int]]


def find_map_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of maps.

    Returns:
        dict: the two folders of each part, under 'train', 'val' and 'test', or under
        'all'. A folder that should be there may be missing. In some data the two are
        one. Empty if there are none.

    Raises:
        DataError: if there are several that may be meant.
    """
    images, maps = _filled(root, IMAGE_FOLDERS), _filled(root, MAP_FOLDERS)
    if images and maps:
        parts, map_parts = split_folders(images), split_folders(maps)
        if not parts and not map_parts:
            return dict(all=(images, maps))
        named = {split: path.name for split, path in {**map_parts, **parts}.items()}
        if named.keys() & {'val', 'test'}:  # or the training part is all there is
            long = 'validation' in named.values()
            named.setdefault('train', 'training' if long else 'train')
        return {
            split: (parts.get(split, images / name), map_parts.get(split, maps / name))
            for split, name in named.items()
            if split != 'test' or (split in parts and split in map_parts)
        }
    parts = split_folders(root)
    for part in parts.values():
        places = _places_in(part)
        if places:
            if parts.keys() & {'val', 'test'}:
                parts.setdefault('train', root / 'train')
            found = {split: places(path) for split, path in parts.items()}
            if 'test' in found and not _paired(*found['test']):
                del found['test']  # of which the maps are not given
            return found
    return dict(all=(root, root)) if not parts and _paired(root, root) else {}


def _places_in(part: Path) -> Callable[[Path], tuple[Path, Path]] | None:
    """How images and maps of a split lie, as one that has them shows it."""
    images, maps = _filled(part, IMAGE_FOLDERS), _filled(part, MAP_FOLDERS)
    if images and maps:
        return lambda path: (path / images.name, path / maps.name)
    for ending in MAP_ENDINGS:
        if part.with_name(part.name + ending).is_dir():
            return lambda path: (path, path.with_name(path.name + ending))
    return (lambda path: (path, path)) if _paired(part, part) else None


def _filled(parent: Path, names: tuple[str, ...]) -> Path | None:
    """The one folder with some name that holds images."""
    found = [
        path
        for path in sorted(parent.iterdir())
        if path.name.lower() in names and first_image(path)
    ]
    if len(found) > 1:
        raise DataError(
            f'{parent} has both {found[0].name} and {found[1].name}, which both hold '
            'images and may both be meant; rename the one that is not.'
        )
    return found[0] if found else None


def first_image(folder: Path) -> Path | None:
    """Some file below a folder that is an image by its suffix."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'):
                return Path(parent, name)
    return None


def _paired(image_dir: Path, map_dir: Path) -> bool:
    """Whether some image in a folder has a map in a folder, perhaps the same one."""
    _, images, maps = match_names(image_dir, map_dir)
    return bool(images.keys() & maps.keys())


def match_names(
    image_dir: Path, map_dir: Path
) -> tuple[tuple[str, str], dict[str, list[str]], dict[str, list[str]]]:
    """Find out how the names of maps follow from those of their images.

    Returns:
        tuple: how both end, as in :data:`TAILS`; then by what they share, the names of
        the images and those of the maps, from their folders.
    """
    images = list_files(image_dir, IMAGE_SUFFIXES)
    one = image_dir == map_dir
    maps = images if one else list_files(map_dir, IMAGE_SUFFIXES)
    usual = None
    for tails in TAILS[1:] if one else TAILS:
        by_image, by_map = _by_stem(images, tails[0]), _by_stem(maps, tails[1])
        if one:  # x_mask.png is no image with the map x_mask_mask.png
            taken = {name for names in by_map.values() for name in names}
            by_image = {k: v for k, v in by_image.items() if not taken.issuperset(v)}
        usual = usual or (tails, by_image, by_map)
        if by_image.keys() & by_map.keys():
            return tails, by_image, by_map
    return usual


def _by_stem(names: list[str], tail: str) -> dict[str, list[str]]:
    """Names by themselves without suffix and tail, of those that end with it."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem = name[: name.rindex('.')]
        if stem.lower().endswith(tail):
            found.setdefault(stem[: len(stem) - len(tail)], []).append(name)
    return found


def pair_files(image_dir: Path, map_dir: Path) -> tuple[Pairs, Oddities]:
    """Give each image its map.

    Args:
        image_dir (Path): with images, in subfolders or not.
        map_dir (Path): with maps, in the same subfolders; may be the same folder.

    Returns:
        tuple: the pairs in the order of the images' names, and what is odd.

    Raises:
        DataError: if one is missing, or is not the only one.
    """
    need_folder(image_dir)
    need_folder(map_dir)
    tails, images, maps = match_names(image_dir, map_dir)
    if not images:
        raise DataError(f'{image_dir} has no images ({", ".join(IMAGE_SUFFIXES)}).')
    pairs, without_map = [], []
    for stem, names in sorted(images.items(), key=lambda item: item[1]):
        label_map = choose_map(map_dir, maps.get(stem, []))
        expected = label_map or f'{stem}{tails[1]}.png'
        if len(names) > 1:
            raise DataError(
                f'{image_dir} has both {names[0]} and {names[1]}, which share the map '
                f'{expected}; rename one of them.'
            )
        if label_map is None:
            without_map.append((names[0], expected))
        pairs.append((image_dir / names[0], map_dir / expected))
    if without_map:
        raise DataError(
            f'{len(without_map)} of {len(images)} images in {image_dir}, such as '
            f'{without_map[0][0]}, have no map in {map_dir} (there it would be '
            f'{without_map[0][1]}); add the maps or remove the images.'
        )
    without_image = sorted(maps.keys() - images.keys())
    if without_image:
        raise DataError(
            f'{len(without_image)} of {len(maps)} maps in {map_dir}, such as '
            f'{maps[without_image[0]][0]}, have no image in {image_dir}; add the '
            'images or remove the maps.'
        )
    return pairs, _left_out(image_dir, map_dir, pairs, tails)


def _left_out(
    image_dir: Path, map_dir: Path, pairs: Pairs, tails: tuple[str, str]
) -> Oddities:
    """What lies in the folders and is in no pair."""
    odd = []
    for folder in dict.fromkeys((image_dir, map_dir)):
        odd += count_other_files(folder)
        used = {path for pair in pairs for path in pair}
        names = list_files(folder, IMAGE_SUFFIXES)
        unused = [name for name in names if folder / name not in used]
        if unused:
            ends = ' or '.join(repr(tail) for tail in tails if tail)
            reason = f'images in {folder} do not end with {ends} and are left out'
            if not ends:
                reason = f'images in {folder} are pictures of maps and are left out'
            odd.append((reason, unused[0], len(unused)))
    return odd


def choose_map(map_dir: Path, names: list[str]) -> str | None:
    """The one of some files of equal names, up to the suffix, that is the map.

    Raises:
        DataError: if there are several, or one that was saved with losses.
    """
    exact = [name for name in names if name.lower().endswith(MAP_SUFFIXES)]
    if len(exact) > 1:
        raise DataError(
            f'{map_dir} has both {exact[0]} and {exact[1]}, maps of the same image; '
            'leave one of them.'
        )
    if names and not exact:
        suffix = PurePosixPath(names[0]).suffix
        raise DataError(
            f'{map_dir / names[0]} cannot be a map: a {suffix} file does not keep the '
            'values of pixels exactly; save maps as PNG, from the labels themselves.'
        )
    return exact[0] if exact else None
