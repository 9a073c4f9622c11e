"""ADE20K as it is distributed for scene parsing."""

from __future__ import annotations

from pathlib import Path

from ..listing import Listing, odd_part
from ..maps import IGNORED, MapValues
from . import Layout
from .map_folders import find_map_folders, first_image, pair_files
from .split_folders import choose_parts

# 0 is "other"; objectInfo150.txt names the rest, and so does mmseg.
VALUES = MapValues(
    range(1, 151), (0, IGNORED), named_in='objectInfo150.txt', zero_ignored=True
)


def find_ade20k(root: Path) -> str | None:
    """Why a folder is taken for ADE20K, or None."""
    if (root / 'classes.txt').exists():
        return None
    image = first_image(root / 'images')
    if image and image.name.startswith('ADE_'):
        return str(image.relative_to(root))
    known = root / 'objectInfo150.txt'
    return known.name if image and known.is_file() else None


def read_ade20k(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read ``images/{training,validation}`` and ``annotations/…``."""
    listings = {}
    parts = choose_parts(find_map_folders(root), splits)
    for split, (part, (images, maps)) in parts.items():
        pairs, odd = pair_files(images, maps)
        listings[split] = Listing(maps, pairs, (), VALUES, odd + odd_part(part, pairs))
    return listings


ADE20K = Layout(
    name='ADE20K',
    described='images/{training,validation}/ADE_*.jpg and annotations/… as distributed',
    find=find_ade20k,
    read=read_ade20k,
)
