"""Maps that give each pixel its class: read, checked and made maps of indices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .base import DataError
from .images import EXIF_ORIENTATION, ImageInfo, unreadable

IGNORED = 255  # what mmseg takes for pixels of no class

# What Pillow calls pixels that are whole numbers, one each
COUNTED_MODES = ('L', 'P')
WHOLE_MODES = (*COUNTED_MODES, '1', 'I', 'I;16', 'I;16B', 'I;16L')


@dataclass(frozen=True)
class MapValues:
    """What the values in maps mean.

    Attributes:
        classes (range): values of pixels that belong to a class, in the order of these.
        ignored (tuple[int]): values of pixels that belong to none.
        named_in (str): the file that names the classes, for messages.
        zero_ignored (bool): whether mmseg has to ignore 0 and take 1 for the index 0.
        indices (tuple[int] | None): of maps that have other values than indices: the
            index of each value, from 0 on; 255 for those of no class, as 255 itself is.
        colours (dict | None): of maps in colour: the index of each (R, G, B); 255 for
            those of no class.
    """

    classes: range
    ignored: tuple[int, ...] = (IGNORED,)
    named_in: str = 'classes.txt'
    zero_ignored: bool = False
    indices: tuple[int, ...] | None = None
    colours: dict[tuple[int, int, int], int] | None = None

    @property
    def converted(self) -> bool:
        """Whether training needs other maps than those in the files."""
        return self.indices is not None or self.colours is not None


def check_pair(
    image: Path, label_map: Path, values: MapValues, info: ImageInfo
) -> set[int]:
    """Check one image, of which ``info`` is known, and its map of indices.

    Returns:
        set[int]: the values in the map.

    Raises:
        DataError: names the file that is not as it should be.
    """
    try:
        with Image.open(label_map) as opened:
            _refuse_turned(opened)
            several = getattr(opened, 'n_frames', 1)
            # counts of 0 to 255; what they stand for in mode 'P' is left aside
            counts = opened.histogram() if opened.mode in COUNTED_MODES else None
            pixels = None if counts else np.array(opened)
            mode, size = opened.mode, opened.size
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(label_map, error) from None
    if several > 1:
        raise DataError(f'{label_map} holds {several} images; a map has to be one.')
    if mode not in WHOLE_MODES:
        what = 'in colour' if pixels.ndim > 2 else 'whose pixels are no whole numbers'
        raise DataError(
            f'{label_map} is an image {what} ({mode}); save one channel that holds the '
            'class indices, or, if its colours stand for classes, add a class_dict.csv '
            'that names them (name,r,g,b).'
        )
    check_size(image, label_map, size, info)
    found = np.flatnonzero(counts) if counts else np.unique(pixels)
    held = {int(value) for value in found}
    unknown = held - set(values.classes) - set(values.ignored)
    if unknown:
        raise DataError(
            f'{label_map} holds the value {min(unknown)}, but the classes are '
            f'{values.classes[0]} to {values.classes[-1]} and '
            f'{" and ".join(map(str, values.ignored))} ignored; correct the map, or '
            f'add a class to {values.named_in} if it lacks one.'
        )
    return held


def _refuse_turned(label_map: Image.Image) -> None:
    """Refuse a map that EXIF turns: Pillow turns a TIFF when it reads it, no PNG.

    Raises:
        ValueError: if it is one.
    """
    orientation = label_map.getexif().get(EXIF_ORIENTATION, 1)
    if orientation != 1:
        raise ValueError(f'its EXIF orientation is {orientation}; save it upright')


def check_size(
    image: Path, label_map: Path, size: tuple[int, int], info: ImageInfo
) -> None:
    """Raise DataError unless a map has the width and height of its image as shown."""
    width, height = info.width, info.height
    if size != (width, height):
        turned = size == info.stored
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels, but its image {image} is '
            f'{width}×{height}'
            + (
                ' when it is turned as its EXIF orientation says; turn the map alike.'
                if turned
                else '; a map needs the size of its image.'
            )
        )
    if min(size) < 2:
        raise DataError(
            f'{label_map} is {size[0]}×{size[1]} pixels; mmseg needs at least 2×2, so '
            'remove the map and its image.'
        )


class Converter:
    """Writes maps of indices for maps that are in colour or have other values.

    Args:
        values (MapValues): what the values in the maps mean.
    """

    UNKNOWN = 256

    def __init__(self, values: MapValues) -> None:
        self.values = values
        if values.colours is None:
            self.table = np.full(1 << 16, self.UNKNOWN, np.uint16)
            self.table[IGNORED] = IGNORED
            self.table[: len(values.indices)] = values.indices
        else:
            self.table = np.full(1 << 24, self.UNKNOWN, np.uint16)
            for (red, green, blue), index in values.colours.items():
                self.table[red << 16 | green << 8 | blue] = index

    def __call__(self, label_map: Path, target: Path) -> tuple[set[int], tuple]:
        """Convert one map.

        Args:
            label_map (Path): the map.
            target (Path): the PNG to be written.

        Returns:
            tuple: the set of indices in the map, and its width and height.

        Raises:
            DataError: if it has a colour or a value that is not known.
        """
        try:
            with Image.open(label_map) as opened:
                _refuse_turned(opened)
                if self.values.colours is not None:
                    rgb = np.asarray(opened.convert('RGB')).astype(np.uint32)
                    codes = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
                else:
                    codes = np.array(opened)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise unreadable(label_map, error) from None
        if codes.ndim != 2 or codes.dtype.kind not in 'bu':
            raise DataError(
                f'{label_map} must hold one whole number per pixel, but has values of '
                f'{codes.dtype} in the shape {codes.shape}.'
            )
        labels = self.table[codes.astype(np.intp, copy=False)]
        unknown = codes[labels == self.UNKNOWN]
        if len(unknown):
            raise self._refuse(label_map, unknown)
        partial = target.with_name(f'{target.name}.{os.getpid()}')
        Image.fromarray(labels.astype(np.uint8)).save(partial, 'PNG', compress_level=1)
        os.replace(partial, target)
        held = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORED + 1))
        return set(held.tolist()), (labels.shape[1], labels.shape[0])

    def _refuse(self, label_map: Path, unknown: np.ndarray) -> DataError:
        """The error for values that are not known."""
        kinds, counts = np.unique(unknown, return_counts=True)
        code, count = int(kinds[counts.argmax()]), int(counts.max())
        more = f'; {len(kinds) - 1} more such' if len(kinds) > 1 else ''
        if self.values.colours is None:
            return DataError(
                f'{label_map} holds the value {code} in {count} pixels{more}, which is '
                f'no value of {self.values.named_in}.'
            )
        rgb = code >> 16, code >> 8 & 255, code & 255
        grey = rgb[0] == rgb[1] == rgb[2]
        return DataError(
            f'{label_map} has the colour {rgb} in {count} pixels{more}, which '
            f'{self.values.named_in} does not list; correct the map, add the colour'
            + (
                ', or, if the values are class indices, list the names alone in '
                'classes.txt.'
                if grey
                else ', or save it without smoothed edges if these are meant.'
            )
        )
