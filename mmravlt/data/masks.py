"""Shapes of objects, polygons and run-length codes: what they cover, what is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from .base import DataError

CHUNK = 20_000  # objects whose values are in memory at a time

# What may be wrong with a part of a polygon.
GOOD, ODD, SHORT, NO_NUMBER, FAR, EMPTY = range(6)
FAULTS = {
    ODD: 'an odd number of values',
    SHORT: 'fewer than three points',
    NO_NUMBER: 'values that are no finite numbers',
    FAR: 'points farther outside the image than it is large',
    EMPTY: 'no pixel inside the image',
}
NO_SHAPE = 'no polygon and no run-length code'


@dataclass
class Shapes:
    """What the shapes of N objects cover.

    Attributes:
        boxes (ndarray): N×4, the left, upper, right and lower ends in pixels; NaN for
            an object without a shape that can be used.
        areas (ndarray): N, in pixels; NaN likewise.
        faults (dict[int, str]): of these, what the shape has.
        mended (dict[int, list]): polygons without their broken parts.
        dropped (list[tuple[int, str]]): these parts: the object, and what a part has.
    """

    boxes: np.ndarray
    areas: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)
    mended: dict[int, list] = field(default_factory=dict)
    dropped: list[tuple[int, str]] = field(default_factory=list)


def measure_shapes(
    rows: list[dict], sizes: np.ndarray, place: Callable[[int], str], needed: bool
) -> Shapes:
    """Measure the ``segmentation`` of objects; nothing is changed.

    Args:
        rows (list[dict]): N annotations of COCO's kind.
        sizes (ndarray): N×2, width and height of the image of each, in pixels.
        place (Callable): names an annotation by its index, to begin a message with.
        needed (bool): whether masks are read; if not, a run-length code that is broken
            is a shape that cannot be used.

    Returns:
        Shapes: of all of them.

    Raises:
        DataError: for the first run-length code that is of another size than its
            image or, where it is needed, does not describe every pixel of it.
    """
    shapes = Shapes(np.full((len(rows), 4), np.nan), np.full(len(rows), np.nan))
    for start in range(0, len(rows), CHUNK):
        polygons, codes = {}, {}
        for i, row in enumerate(rows[start : start + CHUNK], start):
            shape = row.get('segmentation')
            if isinstance(shape, list) and shape:
                if isinstance(shape[0], int | float):  # of one part, without its list
                    shape = shapes.mended[i] = [shape]
                polygons[i] = shape
            elif isinstance(shape, dict) and {'counts', 'size'} <= shape.keys():
                codes[i] = shape
            else:
                shapes.faults[i] = NO_SHAPE
        if polygons:
            _measure_polygons(shapes, polygons, sizes)
        if codes:
            _measure_codes(shapes, codes, sizes, place, needed)
    return shapes


def _measure_polygons(shapes: Shapes, polygons: dict, sizes: np.ndarray) -> None:
    """Measure polygons, given by the index of their object, part by part."""
    parts = list(chain.from_iterable(polygons.values()))
    owners = np.repeat([*polygons], [len(shape) for shape in polygons.values()])
    parts = [part if isinstance(part, list) else [None] * 6 for part in parts]
    lengths = np.array([len(part) for part in parts])
    faults = np.where(lengths % 2, ODD, np.where(lengths < 6, SHORT, GOOD))
    boxes = np.full((len(parts), 4), np.nan)
    areas = np.full(len(parts), np.nan)
    usable = np.flatnonzero(faults == GOOD)
    if len(usable):
        values = _numbers([parts[i] for i in usable])
        boxes[usable], areas[usable] = _outline(values, lengths[usable] // 2)
        faults[usable[~np.isfinite(areas[usable])]] = NO_NUMBER
    width, height = sizes[owners].T
    limits = np.stack([width, height, width, height], axis=1)
    good = faults == GOOD
    far = (boxes[:, :2] < -limits[:, :2]) | (boxes[:, 2:] > 2 * limits[:, 2:])
    faults[good & far.any(1)] = FAR
    clipped = boxes.clip(0, limits)
    sides = clipped[:, 2:] - clipped[:, :2]
    faults[(faults == GOOD) & (sides <= 0).any(1)] = EMPTY
    # Only what is thin, or reaches out of the image, may be without a pixel.
    doubtful = (sides < 2).any(1) | (areas < sides.sum(1) / 2)
    doubtful |= (np.abs(boxes - clipped) > 1).any(1)
    for i in np.flatnonzero(doubtful & (faults == GOOD)):
        pixels = _count_pixels(parts[i], int(width[i]), int(height[i]))
        areas[i] = pixels
        faults[i] = GOOD if pixels else EMPTY

    good = np.flatnonzero(faults == GOOD)
    if len(good):
        rows, first = np.unique(owners[good], return_index=True)  # owners are sorted
        shapes.boxes[rows, :2] = np.minimum.reduceat(boxes[good, :2], first)
        shapes.boxes[rows, 2:] = np.maximum.reduceat(boxes[good, 2:], first)
        shapes.areas[rows] = np.add.reduceat(areas[good], first)
    for i in np.flatnonzero(faults != GOOD):
        owner, fault = int(owners[i]), FAULTS[faults[i]]
        if np.isnan(shapes.areas[owner]):
            shapes.faults.setdefault(owner, f'a polygon with {fault}')
        else:
            shapes.dropped.append((owner, fault))
            mine = range(*np.searchsorted(owners, [owner, owner + 1]))
            shapes.mended[owner] = [parts[k] for k in mine if faults[k] == GOOD]


def _numbers(parts: list[list]) -> np.ndarray:
    """All values of some lists, one after the other; NaN for what is no number."""
    values = list(chain.from_iterable(parts))
    if not set(map(type, values)) <= {int, float}:
        values = [v if type(v) in (int, float) else math.nan for v in values]
    try:
        return np.array(values, float)
    except OverflowError:  # an integer beyond all floating point numbers
        return np.array([v if abs(v) < 1e300 else math.nan for v in values], float)


def _outline(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and areas of polygons, from their points, one after the other.

    Args:
        values (ndarray): x and y by turns.
        lengths (ndarray): P, how many points each has.

    Returns:
        tuple: P×4 ends and P areas; not finite where a value is not.
    """
    points = values.reshape(-1, 2)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    with np.errstate(invalid='ignore', over='ignore'):
        x, y = (points - np.repeat(low, lengths, 0)).T
        after = np.arange(1, len(points) + 1)
        after[ends - 1] = starts
        areas = np.abs(np.add.reduceat(x * y[after] - x[after] * y, starts)) / 2
    return np.concatenate([low, high], axis=1), areas


def _count_pixels(part: list, width: int, height: int) -> int:
    """How many pixels a polygon has, as training and scoring draw it."""
    from pycocotools import mask

    return int(mask.area(mask.frPyObjects([part], height, width))[0])


def _measure_codes(
    shapes: Shapes, codes: dict, sizes: np.ndarray, place: Callable, needed: bool
) -> None:
    """Measure run-length codes, given by the index of their object."""
    for i, code in codes.items():
        width, height = sizes[i].tolist()
        size = code['size']
        if size != [height, width] or set(map(type, size)) != {int}:
            raise DataError(
                f'{place(i)} a run-length code of the size {size!r}, but its image has '
                f'{[height, width]!r} (height, width); export the masks again.'
            )
    runs, faults = _read_counts(codes, sizes)
    if faults and needed:
        i = min(faults)
        raise DataError(
            f'{place(i)} a run-length code {faults[i]}; export the masks again.'
        )
    for i in faults:
        shapes.faults[i] = 'a broken run-length code'
    if not runs:
        return
    rows = np.array([*runs])
    lengths = np.array([len(counts) for counts in runs.values()])
    counts = np.concatenate([*runs.values()])
    width, height = sizes[rows].T
    first = np.cumsum(lengths) - lengths
    last = np.cumsum(counts)
    last -= np.repeat((last - counts)[first], lengths)
    inside = (np.arange(len(counts)) - np.repeat(first, lengths)) % 2 == 1
    inside &= counts > 0
    owner = np.repeat(np.arange(len(rows)), lengths)[inside]
    begin, end = (last - counts)[inside], last[inside] - 1
    heights = height[owner]
    tall = begin // heights != end // heights  # goes on in the next column
    tops = np.where(tall, 0, begin % heights)
    bottoms = np.where(tall, heights, end % heights + 1)
    filled, first = np.unique(owner, return_index=True)
    if len(filled):
        sides = [
            np.minimum.reduceat(begin // heights, first),
            np.minimum.reduceat(tops, first),
            np.maximum.reduceat(end // heights + 1, first),
            np.maximum.reduceat(bottoms, first),
        ]
        shapes.boxes[rows[filled]] = np.stack(sides, axis=1)
        shapes.areas[rows[filled]] = np.add.reduceat(counts[inside], first)
    for i in np.delete(rows, filled).tolist():
        shapes.faults[i] = 'a run-length code without a pixel'


def _read_counts(codes: dict, sizes: np.ndarray) -> tuple[dict, dict[int, str]]:
    """The runs of run-length codes.

    Returns:
        tuple: by the index of an object, its runs, if they are all the pixels of its
        image, and what its code has otherwise.
    """
    texts = {i: x['counts'] for i, x in codes.items() if isinstance(x['counts'], str)}
    decoded, odd = decode_counts([*texts.values()])
    runs = dict(zip(texts, decoded, strict=True))
    indices = [*texts]
    faults = {indices[k]: fault for k, fault in odd.items()}
    for i in codes.keys() - texts.keys():
        counts = codes[i]['counts']
        if not isinstance(counts, list):
            faults[i] = f'with {counts!r} for its counts'
        elif not set(map(type, counts)) <= {int}:
            wrong = next(count for count in counts if type(count) is not int)
            faults[i] = f'with {wrong!r} among its counts'
        else:
            runs[i] = counts
    for i, counts in runs.items():
        width, height = sizes[i].tolist()
        is_list = isinstance(counts, list)  # of integers of any size
        total = sum(counts) if is_list else int(counts.sum())
        least = min(counts, default=0) if is_list else int(counts.min(initial=0))
        if total != height * width or least < 0:
            below = f', with {least} among them' if least < 0 else ''
            faults.setdefault(
                i,
                f'whose counts add up to {total}{below}, but its image has '
                f'{height}×{width} = {height * width} pixels',
            )
    good = codes.keys() - faults.keys()
    return {i: np.array(runs[i], np.int64) for i in codes if i in good}, faults


def decode_counts(texts: list[str]) -> tuple[list[np.ndarray], dict[int, str]]:
    """The runs of COCO's compressed run-length codes.

    Each character holds five bits of a number, the lowest first, in ``ord - 48``;
    bit 5 says that more follow. From the fourth run on, the number is the difference
    from the last run but one.

    Returns:
        tuple: of each text, its runs, and by index, what is wrong with a text, whose
        runs then mean nothing.
    """
    faults: dict[int, str] = {}
    characters = ''.join(texts).encode('utf-32-le', 'surrogatepass')
    bits = np.frombuffer(characters, np.uint32).astype(np.int64) - 48
    lengths = np.array([len(text) for text in texts], int)
    owners = np.repeat(np.arange(len(texts)), lengths)
    for k in np.flatnonzero((bits < 0) | (bits > 63)):
        fault = f'with {chr(bits[k] + 48)!r} among its characters'
        faults.setdefault(int(owners[k]), fault)
    stops = bits < 32
    last = (np.cumsum(lengths) - 1)[lengths > 0]
    for k in last[~stops[last]]:
        faults.setdefault(int(owners[k]), 'that ends within a number')
    stops[last] = True
    ends = np.flatnonzero(stops)
    sizes = np.diff(ends, prepend=-1)
    for k in ends[sizes > 7]:  # 35 bits; runs have 32
        faults.setdefault(int(owners[k]), 'with a number of more than 7 characters')
    starts = ends - sizes + 1
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, sizes)).clip(max=7)
    runs = np.add.reduceat((bits & 31) << shifts, starts) if len(bits) else bits
    runs -= np.where(bits[ends] & 16, 1 << 5 * sizes.clip(max=7), 0)  # the sign
    numbers = np.bincount(owners[ends], minlength=len(texts))
    first = np.cumsum(numbers) - numbers
    place = np.arange(len(runs)) - np.repeat(first, numbers)
    for chain_of in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        sums = np.concatenate([[0], np.cumsum(np.where(chain_of, runs, 0))])
        sums = sums[1:] - np.repeat(sums[first], numbers)
        runs[chain_of] = sums[chain_of]
    return np.split(runs, first[1:]) if texts else [], faults
