"""Segments of panoptic data: what is wrong with them, and what can be mended."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import Image

from .base import DataError
from .boxes import check_format, read_boxes
from .files import check_files
from .findings import Findings
from .image_tables import (
    ImageTables,
    check_size_types,
    check_sizes,
    check_small,
    read_sizes,
)
from .images import ImageInfo, unreadable
from .layouts.coco import check_row
from .objects import unknown_id

SEGMENTS = dict(id=int, category_id=int | str)


@dataclass
class SegmentTables(ImageTables):
    """The segments of one split.

    Attributes:
        map_dir (Path): the folder of the PNG maps.
    """

    map_dir: Path = Path()


def check_segments(
    tables: SegmentTables,
    split: str,
    check: bool,
    findings: Findings,
    infos: dict[Path, ImageInfo],
) -> None:
    """Check the segments of a split against their maps, and mend them in place.

    A map has the last word on the area and the box of a segment: scoring computes
    with this area, and training takes what the map shows for the object in the box.

    Args:
        tables (SegmentTables): of the split; ``changed`` is set where they are mended.
        split (str): 'train' or 'val'.
        check (bool): whether files are opened and values looked at.
        findings (Findings): what is mended or not used is counted there.
        infos (dict): of the images' files that were opened.

    Raises:
        DataError: names the first image, map or segment that is wrong, or says why
            nothing is left of the split.
    """
    source, content = tables.source, tables.content
    images = content['images']
    check_size_types(source, images)
    sizes = read_sizes(tables, infos)
    tables.changed |= check_sizes(source, images, sizes, split, findings)
    _check_rows(tables, check)
    small = check_small(source, images, split, findings)
    if check:
        _check_values(tables, split, findings)
    _count(tables, split, findings, small)


def _check_rows(tables: SegmentTables, check: bool) -> None:
    """Each segment must have a known category and an id that fits a colour."""
    source = tables.source
    categories = {row['id'] for row in tables.content['categories']}
    for row in tables.content['annotations']:
        for i, segment in enumerate(row['segments_info']):
            place = f'segments_info[{i}] of {row["file_name"]!r}'
            kinds = SEGMENTS if check else dict(SEGMENTS, bbox=list, area=Real)
            check_row(source, place, segment, kinds)
            value = segment['category_id']
            if value not in categories:
                place = f'{source}: {place} has category_id'
                raise unknown_id(place, value, categories, 'categories')
            if not 0 < segment['id'] < 256**3:
                raise DataError(
                    f'{source}: {place} has the id {segment["id"]}; give one from 1 '
                    f'to {256**3 - 1}, which three bytes hold.'
                )
            crowd = segment.get('iscrowd')
            if crowd not in (0, 1, None):
                raise DataError(
                    f'{source}: {place} has iscrowd {crowd!r}; give 0 or 1.'
                )
            if type(crowd) is not int:
                segment['iscrowd'] = int(crowd or 0)
                tables.changed = True


def _check_values(tables: SegmentTables, split: str, findings: Findings) -> None:
    """Check areas and boxes against the maps, and mend them."""
    images = {image['id']: image for image in tables.content['images']}
    rows = tables.content['annotations']
    pairs = [(tables.map_dir, images[row['image_id']], row) for row in rows]
    measured = check_files(
        lambda pair: _measure_map(*pair), pairs, f'maps in {tables.map_dir}'
    )
    segments = [segment for row in rows for segment in row['segments_info']]
    if not segments:
        return
    names = [
        f'segments_info[{i}] of {row["file_name"]!r} has'
        for row in rows
        for i in range(len(row['segments_info']))
    ]
    truth = np.concatenate(measured)
    sizes = np.repeat(
        [(image['width'], image['height']) for _, image, _ in pairs],
        [len(found) for found in measured],
        axis=0,
    )

    def place(i: int) -> str:
        return f'{tables.source}: {names[i]}'

    boxes = read_boxes(segments, place)
    wrong = check_format(tables.source, boxes, truth[:, :4], sizes, place)
    # mmdet leaves out what is below one pixel in width or height.
    wrong |= ~(boxes[:, 2:] >= 1).all(1)
    areas = [segment.get('area') for segment in segments]
    areas = [x if type(x) in (int, float) else np.nan for x in areas]
    areas = np.array([x if abs(x) < 1e300 else np.nan for x in areas], float)
    for key, which in (('bbox', wrong), ('area', areas != truth[:, 4])):
        chosen = np.flatnonzero(which)
        if len(chosen):
            example = f'{names[chosen[0]]} {key} {segments[chosen[0]].get(key)!r}'
            reason = f'segments have another {key} than in their map, which is taken'
            findings.add(split, reason, example, len(chosen))
            tables.changed = True
        for i in chosen:
            left, top, right, bottom, area = map(int, truth[i])
            box = [left, top, right - left, bottom - top]
            segments[i][key] = box if key == 'bbox' else area


def _measure_map(map_dir: Path, image: dict, row: dict) -> np.ndarray:
    """Check that the colours of a map are the segments of its row, and measure these.

    Returns:
        ndarray: S×5: the left, upper, right and lower ends of each, and its area.

    Raises:
        DataError: names the map.
    """
    path = map_dir / row['file_name']
    try:
        with Image.open(path) as opened:
            mode, size = opened.mode, opened.size
            pixels = np.asarray(opened, np.uint8) if mode == 'RGB' else None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(path, error) from None
    if pixels is None:
        raise DataError(
            f'{path} is no map of segments (mode {mode}); save a PNG in RGB, whose '
            'pixels are R + 256 G + 65536 B = the id of their segment, or black.'
        )
    if size != (image['width'], image['height']):
        raise DataError(
            f'{path} is {size[0]}×{size[1]} pixels, but its image is '
            f'{image["width"]}×{image["height"]}; a map needs the size of its image.'
        )
    colours, measured = _measure_colours(pixels)
    listed = [segment['id'] for segment in row['segments_info']]
    if len(listed) > len(set(listed)) or set(colours) != set(listed):
        twice = {i for i in listed if listed.count(i) > 1}
        odd = set(colours).symmetric_difference(listed) or twice
        raise DataError(
            f'{path} and its segments_info must have the same ids, each once there; '
            f'{min(odd)} is not so.'
        )
    return measured[np.searchsorted(colours, listed)]


def _measure_colours(pixels: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Where the colours of an H×W×3 map are, from its runs of equal pixels.

    Returns:
        tuple: the ids of the colours but black, sorted, and of each the left, upper,
        right and lower ends, and its area.
    """
    ids = pixels[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids = ids * 256 + pixels[..., channel]
    width = ids.shape[1]
    edges = np.ones(ids.shape, bool)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=edges[:, 1:])
    starts = np.flatnonzero(edges)
    lengths = np.diff(starts, append=ids.size)
    values = ids.ravel()[starts]
    order = np.argsort(values, kind='stable')
    order = order[values[order] > 0]
    values, starts, lengths = values[order], starts[order], lengths[order]
    if not len(values):
        return [], np.zeros((0, 5))
    first = np.flatnonzero(np.diff(values, prepend=0))
    left, top = starts % width, starts // width
    measured = [
        np.minimum.reduceat(left, first),
        np.minimum.reduceat(top, first),
        np.maximum.reduceat(left + lengths, first),
        np.maximum.reduceat(top + 1, first),
        np.add.reduceat(lengths, first),
    ]
    return values[first].tolist(), np.stack(measured, axis=1).astype(float)


def _count(tables: SegmentTables, split: str, findings: Findings, small: set) -> None:
    """Count what is not used, and refuse a split of which nothing is left."""
    content = tables.content
    things = {row['id'] for row in content['categories'] if row['isthing']}
    used, learnt = set(), set()
    for row in content['annotations']:
        for i, segment in enumerate(row['segments_info']):
            if segment['iscrowd']:
                reason = 'segments are crowds, which are no objects and not scored'
                example = f'segments_info[{i}] of {row["file_name"]!r}'
                findings.add(split, reason, example)
            elif row['image_id'] not in small:
                used.add(segment['category_id'])
                if segment['category_id'] in things:
                    learnt.add(row['image_id'])
    if split == 'train':
        without = [
            image['file_name']
            for image in content['images']
            if image['id'] not in learnt and image['id'] not in small
        ]
        if without:
            reason = 'images have no things; training leaves them out'
            findings.add(split, reason, repr(without[0]), len(without))
        if not learnt:
            what = (
                f'{tables.source} has no segments of things but crowds to learn from.'
            )
            findings.refuse(split, what)
    if not used:
        findings.refuse(split, f'{tables.source} has no segments but crowds to score.')
    unused = [row['name'] for row in content['categories'] if row['id'] not in used]
    if unused:
        names = ', '.join(map(repr, unused[:10]))
        findings.add(split, 'classes never occur', names, len(unused))
