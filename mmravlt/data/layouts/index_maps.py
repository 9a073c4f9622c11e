"""Folders of images and of maps, in which values or colours stand for classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..images import unreadable
from ..listing import Listing, odd_part
from ..maps import IGNORED, WHOLE_MODES, MapValues
from . import Layout
from .class_names import NAMES, find_colours, find_names, read_classes, read_colours
from .map_folders import find_map_folders, first_image, match_names, pair_files
from .split_folders import choose_parts

GREY_MODES = ('RGB', 'RGBA', 'LA')  # of Pillow, that may hold one value per pixel


def find_index_maps(root: Path) -> str | None:
    """Why a folder is taken for one of maps of indices, or None."""
    return _find(root, in_colour=False)


def find_colour_maps(root: Path) -> str | None:
    """Why a folder is taken for one of maps in colour, or None."""
    return _find(root, in_colour=True)


def _find(root: Path, in_colour: bool) -> str | None:
    found = find_map_folders(root)
    if not found:
        return None
    table, names = find_colours(root), find_names(root)
    by_colour = table is not None and (names is None or _first_in_colour(found))
    if by_colour != in_colour:
        return None
    folders = next((pair for pair in found.values() if pair[1].is_dir()), None)
    if folders is None:
        return None
    where = ' and '.join(str(path.relative_to(root)) for path in folders)
    return f'{table.name}, {where}' if by_colour else where


def _first_in_colour(folders: dict[str, tuple[Path, Path]]) -> bool:
    """Whether the first map is in colour, or has indices in three channels."""
    return _first_map(folders)[0] not in WHOLE_MODES


def _first_map(folders: dict[str, tuple[Path, Path]]) -> tuple[str, bool]:
    """What Pillow calls the pixels of the first map, and whether they are grey."""
    for images, maps in folders.values():
        label_map = first_image(maps)
        if images == maps:
            _, by_image, by_map = match_names(images, maps)
            stem = min(by_image.keys() & by_map.keys())
            label_map = maps / by_map[stem][0]
        if label_map:
            try:
                with Image.open(label_map) as opened:
                    rgb = np.asarray(opened.convert('RGB'))
                    return opened.mode, bool((rgb == rgb[..., :1]).all())
            except Exception as error:  # Pillow raises many kinds for a damaged file
                raise unreadable(label_map, error) from None
    return WHOLE_MODES[0], True


def read_index_maps(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read folders of images and of maps of indices, and ``classes.txt``.

    A map may hold its indices in each of the channels of a picture in colour.
    """
    classes = read_classes(find_names(root) or root / NAMES)
    colours = None
    mode, grey = _first_map(find_map_folders(root))
    if mode in GREY_MODES and grey:
        colours = {(i, i, i): i for i in (*range(len(classes)), IGNORED)}
    values = MapValues(range(len(classes)), colours=colours)
    return _read(root, splits, classes, values, [])


def read_colour_maps(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read folders of images and of maps in colour, and the table of colours."""
    table = find_colours(root)
    classes, values, ignored = read_colours(table)
    return _read(root, splits, classes, values, ignored_names(table, ignored))


def ignored_names(table: Path, names: list[str]) -> list[tuple[str, str, int]]:
    """What to say of names in a table of colours that are of no class."""
    reason = f'names in {table} are taken for pixels to be ignored, not for classes'
    return [(reason, names[0], len(names))] if names else []


def _read(
    root: Path,
    splits: tuple[str, ...],
    classes: tuple[str, ...],
    values: MapValues,
    odd: list[tuple[str, str, int]],
) -> dict[str, Listing]:
    listings = {}
    parts = choose_parts(find_map_folders(root), splits)
    for split, (part, (images, maps)) in parts.items():
        pairs, left_out = pair_files(images, maps)
        odd = odd + left_out + odd_part(part, pairs)
        listings[split] = Listing(maps, pairs, classes, values, odd)
        odd = []  # what the table of colours says, once
    return listings


INDEX_MAPS = Layout(
    name='index maps',
    described='images/{train,val} and annotations/{train,val} or the like, with maps '
    'of class indices (PNG), and classes.txt',
    find=find_index_maps,
    read=read_index_maps,
)
COLOUR_MAPS = Layout(
    name='colour maps',
    described='the same folders with maps in colour, and labelmap.txt, class_dict.csv '
    'or classes.txt with a colour behind each name',
    find=find_colour_maps,
    read=read_colour_maps,
)
