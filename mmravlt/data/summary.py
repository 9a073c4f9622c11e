"""What is in prepared data, counted for people to look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .base import Prepared
from .images import image_size
from .maps import IGNORED

# Of more maps or files than this, some are looked at, evenly spread.
LOOKED_AT = 200


@dataclass(frozen=True)
class Sample:
    """An image and what is said of it.

    Attributes:
        path (Path): of the image.
        label (str | None): the class of all of it.
        boxes (list): ``(class index, [x, y, width, height], polygons)`` of its objects;
            a polygon is a list of x, y, x, y …
        label_map (ndarray | None): H×W class indices, 255 for none.
    """

    path: Path
    label: str | None = None
    boxes: list = field(default_factory=list)
    label_map: np.ndarray | None = None


@dataclass
class Summary:
    """One split.

    Attributes:
        images (int): number of them.
        counted (str): what ``counts`` counts: 'objects', 'images' or '% of pixels'.
        counts (dict[str, float]): by the names of all classes.
        image_sizes (list[tuple[int, int]]): width and height.
        object_sizes (list[float]): the roots of their areas, in pixels.
        samples (list[Sample]): a few, evenly spread.
    """

    images: int
    counted: str
    counts: dict[str, float]
    image_sizes: list[tuple[int, int]] = field(default_factory=list)
    object_sizes: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def spread(items: list, number: int) -> list:
    """At most ``number`` of the items, evenly spread."""
    if len(items) <= number:
        return items
    return [items[i * len(items) // number] for i in range(number)]


def summarise_objects(data: Prepared, split: str, samples: int) -> Summary:
    """Of objects with boxes, in a file of COCO's."""
    found = data.splits[split]
    content = json.loads(Path(found['ann_file']).read_text(encoding='utf-8-sig'))
    index = {row['id']: i for i, row in enumerate(content['categories'])}
    objects = [row for row in content['annotations'] if not row.get('iscrowd')]
    counts = Counter(data.classes[index[row['category_id']]] for row in objects)
    of_image: dict = {}
    for row in objects:
        segmentation = row.get('segmentation')
        polygons = segmentation if isinstance(segmentation, list) else []
        drawn = (index[row['category_id']], row['bbox'], polygons)
        of_image.setdefault(row['image_id'], []).append(drawn)
    filled = [image for image in content['images'] if image['id'] in of_image]
    return Summary(
        len(content['images']),
        'objects',
        {name: counts[name] for name in data.classes},
        [(image['width'], image['height']) for image in content['images']],
        [max(row['area'], 0) ** 0.5 for row in objects],
        [
            Sample(
                Path(found['image_dir']) / image['file_name'],
                boxes=of_image[image['id']],
            )
            for image in spread(filled, samples)
        ],
    )


def summarise_segments(data: Prepared, split: str, samples: int) -> Summary:
    """Of things and stuff, in a panoptic file of COCO's."""
    found = data.splits[split]
    content = json.loads(Path(found['ann_file']).read_text(encoding='utf-8-sig'))
    index = {row['id']: i for i, row in enumerate(content['categories'])}
    images = {image['id']: image for image in content['images']}
    segments = [s for row in content['annotations'] for s in row['segments_info']]
    counts = Counter(data.classes[index[s['category_id']]] for s in segments)

    def read(row: dict) -> Sample:
        with Image.open(Path(found['map_dir']) / row['file_name']) as opened:
            colours = np.array(opened.convert('RGB'), np.int64)
        ids = colours @ (1, 256, 256**2)
        label_map = np.full(ids.shape, IGNORED)
        for segment in row['segments_info']:
            label_map[ids == segment['id']] = index[segment['category_id']]
        name = images[row['image_id']]['file_name']
        return Sample(Path(found['image_dir']) / name, label_map=label_map)

    return Summary(
        len(images),
        'segments',
        {name: counts[name] for name in data.classes},
        [(image['width'], image['height']) for image in images.values()],
        [s['area'] ** 0.5 for s in segments if index[s['category_id']] < data.things],
        [read(row) for row in spread(content['annotations'], samples)],
    )


def summarise_maps(data: Prepared, split: str, samples: int) -> Summary:
    """Of images with maps of class indices."""
    found = data.splits[split]
    pairs = json.loads(Path(found['ann_file']).read_text(encoding='utf-8'))
    counts: Counter = Counter()
    sizes = []
    looked_at = spread(pairs, LOOKED_AT)
    for label_map in _read_maps(looked_at, found['zero_ignored']):
        sizes.append(label_map.shape[::-1])
        values, numbers = np.unique(label_map, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    counts.pop(IGNORED, None)
    classes = data.classes or [f'class {i}' for i in range(max(counts, default=0) + 1)]
    total = max(sum(counts.values()), 1)
    chosen = spread(pairs, samples)
    maps = _read_maps(chosen, found['zero_ignored'])
    return Summary(
        len(pairs),
        '% of pixels',
        {name: 100 * counts[i] / total for i, name in enumerate(classes)},
        sizes,
        samples=[
            Sample(Path(image), label_map=label_map)
            for (image, _), label_map in zip(chosen, maps, strict=True)
        ],
    )


def _read_maps(pairs: list, zero_ignored: bool) -> Iterator[np.ndarray]:
    for _, path in pairs:
        with Image.open(path) as opened:
            values = np.array(opened).astype(np.int64)
        yield np.where(values == 0, IGNORED, values - 1) if zero_ignored else values


def summarise_classes(data: Prepared, split: str, samples: int) -> Summary:
    """Of images with one class each."""
    text = Path(data.splits[split]['ann_file']).read_text(encoding='utf-8')
    rows = [line.rsplit(' ', 1) for line in text.rstrip('\n').split('\n')]
    counts = Counter(data.classes[int(label)] for _, label in rows)
    sizes = [image_size(Path(path)) for path, _ in spread(rows, LOOKED_AT)]
    by_class: dict[str, list[str]] = {}
    for path, label in rows:
        by_class.setdefault(data.classes[int(label)], []).append(path)
    chosen = [
        Sample(Path(paths[i]), label=name)
        for i in range(samples)
        for name, paths in by_class.items()
        if i < len(paths)
    ]
    return Summary(
        len(rows),
        'images',
        {name: counts[name] for name in data.classes},
        sizes,
        samples=chosen[:samples],
    )


#: By the names that :func:`mmravlt.data.cache.prepare_once` gives the tasks.
SUMMARIES: dict[str, Callable[[Prepared, str, int], Summary]] = dict(
    detection=summarise_objects,
    segmentation=summarise_maps,
    classification=summarise_classes,
    panoptic=summarise_segments,
)
