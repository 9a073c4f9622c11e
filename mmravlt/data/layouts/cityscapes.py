"""Cityscapes: images and maps in two trees, with long endings of their names."""

from __future__ import annotations

from pathlib import Path

from ..files import list_files
from ..listing import Listing, odd_part
from ..maps import IGNORED, MapValues
from . import Layout
from .class_names import NAMES, read_classes
from .map_folders import first_image, pair_files
from .split_folders import choose_parts, split_folders

IMAGES, MAPS = 'leftImg8bit', 'gtFine'

#: The classes that are scored, in the order of the indices for training.
CLASSES = (
    *('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light'),
    *('traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car'),
    *('truck', 'bus', 'train', 'motorcycle', 'bicycle'),
)
# Their values in *_labelIds.png; up to 33 are others, which are not scored.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_INDICES = tuple(IDS.index(i) if i in IDS else IGNORED for i in range(34))


def find_cityscapes(root: Path) -> str | None:
    """Why a folder is taken for one of Cityscapes' kind, or None."""
    both = first_image(root / IMAGES) and first_image(root / MAPS)
    return f'{IMAGES} and {MAPS}' if both else None


def read_cityscapes(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read ``leftImg8bit`` and ``gtFine``, with ``classes.txt`` if the classes differ.

    Of the maps, ``*_labelTrainIds.png`` are taken, or else ``*_labelIds.png``.
    """
    own = (root / NAMES).is_file()
    classes = read_classes(root / NAMES) if own else CLASSES
    parts = split_folders(root / IMAGES)
    if parts.keys() & {'val', 'test'}:
        parts.setdefault('train', root / IMAGES / 'train')
    elif not parts:
        parts['all'] = root / IMAGES
    listings = {}
    for split, (part, images) in choose_parts(parts, splits).items():
        maps = root / MAPS / images.relative_to(root / IMAGES)
        pairs, odd = pair_files(images, maps)
        by_id = not own and not list_files(maps, ('_labeltrainids.png',))
        indices = _INDICES if by_id else None
        values = MapValues(
            range(len(classes)),
            named_in=NAMES if own else 'Cityscapes',
            indices=indices,
        )
        # Colours and instances, which lie beside the maps, are no oddity.
        odd = [entry for entry in odd if not entry[0].startswith(f'images in {maps} ')]
        odd += odd_part(part, pairs)
        listings[split] = Listing(maps, pairs, classes, values, odd)
    return listings


CITYSCAPES = Layout(
    name='Cityscapes',
    described='leftImg8bit/{train,val}/…/*_leftImg8bit.png and '
    'gtFine/…/*_gtFine_labelTrainIds.png or *_labelIds.png',
    find=find_cityscapes,
    read=read_cityscapes,
)
