"""Boxes of objects: whether they are what COCO means by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np

from .base import DataError

COCO_FORMAT = '[x, y, width, height]'


def _from_corners(boxes: np.ndarray) -> np.ndarray:
    return boxes


def _from_centres(boxes: np.ndarray) -> np.ndarray:
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])


# What else people write into ``bbox``, and what makes N×4 ends of it.
OTHER_FORMATS = {
    '[x1, y1, x2, y2]': _from_corners,
    '[centre x, centre y, width, height]': _from_centres,
}


def read_boxes(rows: list[dict], place: Callable[[int], str]) -> np.ndarray:
    """The values of ``bbox``.

    Args:
        rows (list[dict]): N annotations of COCO's kind.
        place (Callable): names an annotation by its index, to begin a message with.

    Returns:
        ndarray: N×4; NaN for an annotation without a box.

    Raises:
        DataError: for the first box that is not four finite numbers.
    """
    boxes = [row.get('bbox') for row in rows]
    missing = [i for i, box in enumerate(boxes) if box is None or box == []]
    for i in missing:
        boxes[i] = [0, 0, 0, 0]
    try:
        flat = list(chain.from_iterable(boxes))
        fast = set(map(len, boxes)) <= {4} and set(map(type, flat)) <= {int, float}
        values = np.array(flat if fast else [np.nan], float)
    except (TypeError, OverflowError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        i = next(i for i, box in enumerate(boxes) if not _is_box(box))
        raise DataError(f'{place(i)} bbox {boxes[i]!r}; give {COCO_FORMAT} in pixels.')
    values = values.reshape(-1, 4)
    values[missing] = np.nan
    return values


def upright_boxes(boxes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The smallest upright boxes around boxes that are turned about their centres.

    Args:
        boxes (ndarray): N×4, x, y, width and height before they are turned.
        angles (ndarray): N, in degrees.

    Returns:
        ndarray: N×4, likewise.
    """
    angles = np.deg2rad(angles)
    cos, sin = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    width, height = boxes[:, 2:].T
    sides = np.stack([width * cos + height * sin, width * sin + height * cos], axis=1)
    return np.hstack([boxes[:, :2] + (boxes[:, 2:] - sides) / 2, sides])


def _is_box(box) -> bool:
    """Whether it is four finite numbers."""
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(x) in (int, float) and abs(x) < 1e300 for x in box)
    )


def check_format(
    source: Path,
    boxes: np.ndarray,
    shapes: np.ndarray,
    sizes: np.ndarray,
    place: Callable[[int], str],
) -> np.ndarray:
    """Check that boxes are meant as COCO's, in pixels, and agree with the shapes.

    Args:
        source (Path): the file that messages name.
        boxes (ndarray): N×4, as they stand in the file, NaN for those that have none.
        shapes (ndarray): N×4, the ends of the same objects' shapes; NaN for unknown.
        sizes (ndarray): N×2, width and height of their images.
        place (Callable): names an annotation by its index, to begin a message with.

    Returns:
        ndarray: N, bool: whether a box is another one than that of its shape, by more
        than 2 pixels and a tenth of the shape's side.

    Raises:
        DataError: if the boxes are relative or in another format, or if most of those
            whose shapes are known disagree with these.
    """
    given = ~np.isnan(boxes).any(1)
    if not given.any():
        return given
    values, known = boxes[given], ~np.isnan(shapes).any(1) & given
    first = int(given.argmax())
    if values.max() <= 1.5 and values.min() >= -0.5 and np.median(sizes[given]) > 3:
        raise DataError(
            f'{place(first)} bbox {_text(boxes[first])}, between 0 and 1 as all boxes '
            'of the file: these are relative; multiply them, and the shapes, by width '
            f'and height of their images, for COCO has {COCO_FORMAT} in pixels.'
        )
    limits = np.hstack([sizes, sizes])
    ends = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    # A box without any size is mended like one that is missing.
    sized = given & (boxes[:, 2:] > 0).all(1)
    wrong = known & sized & _disagree(ends, shapes, limits)
    compared = int((known & sized).sum())
    mostly_wrong = 2 * wrong.sum() > compared
    outside = given & (ends[:, 2:] - sizes > np.maximum(2, sizes / 100)).any(1)
    for name, convert in OTHER_FORMATS.items():
        other = convert(boxes)
        if mostly_wrong:
            misread = known & sized & ~_disagree(other, shapes, limits)
            fits = 2 * misread.sum() > compared
            example, count = int((wrong & misread).argmax()), int(wrong.sum())
            reason = f'its shape has {_text(shapes[example])} as [x1, y1, x2, y2]'
        else:
            fits = 2 * compared < len(values) <= 10 * outside.sum()
            fits = fits and _inside(other[given], sizes[given])
            example, count = int(outside.argmax()), int(outside.sum())
            width, height = sizes[example].tolist()
            reason = f'its image is {width}×{height} pixels'
        if fits:
            raise DataError(
                f'{place(example)} bbox {_text(boxes[example])}, but {reason}: the '
                f'boxes of the file seem to be {name} ({count} of them do not fit as '
                f'COCO has them); write {COCO_FORMAT}.'
            )
    if mostly_wrong:
        example = int(wrong.argmax())
        raise DataError(
            f'{place(example)} bbox {_text(boxes[example])}, but its shape has '
            f'{_text(_as_coco(shapes[example]))}; {int(wrong.sum())} of {compared} '
            'boxes disagree with the shapes of their own objects; mend what is wrong '
            f'(a box is {COCO_FORMAT} in pixels), or use --no-check if all is meant so.'
        )
    return wrong


def _disagree(ends: np.ndarray, shapes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Whether boxes are others than those of shapes, inside the image; all are ends."""
    sides = np.tile(shapes[:, 2:] - shapes[:, :2], 2)
    apart = np.abs(ends.clip(0, limits) - shapes.clip(0, limits))
    return (apart > np.maximum(2, sides / 10)).any(1)


def _inside(ends: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether nearly all are boxes inside their images, within two pixels."""
    inside = (ends[:, 2:] > ends[:, :2]) & (ends[:, :2] >= -2)
    inside &= ends[:, 2:] <= sizes + 2
    return bool(inside.all(1).mean() > 0.95)


def _as_coco(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([ends[:2], ends[2:] - ends[:2]])


def _text(values: np.ndarray) -> str:
    """Numbers as a message shows them."""
    return f'[{", ".join(f"{value:g}" for value in values.tolist())}]'
