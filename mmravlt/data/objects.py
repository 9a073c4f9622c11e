"""Objects in images, as COCO's tables: what is wrong, and what can be mended."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from .base import DataError, DataOptions
from .findings import Findings


@dataclass
class ObjectTables:
    """The objects of one split, whatever layout they came from.

    Attributes:
        source (Path): the file or folder that messages name.
        image_dir (Path): from which the names of images start.
        content (dict): COCO's tables, ``images``, ``annotations`` and ``categories``.
        changed (bool): whether ``source`` says something else, or is no file of COCO.
    """

    source: Path
    image_dir: Path
    content: dict
    changed: bool = False


def check_objects(
    tables: ObjectTables, split: str, options: DataOptions, findings: Findings
) -> None:
    """Check the objects of a split, and mend what has one right answer, in place.

    Args:
        tables (ObjectTables): of the split; ``changed`` is set where they are mended.
        split (str): 'train' or 'val'.
        options (DataOptions): with ``masks``.
        findings (Findings): what is left out or mended is counted there.

    Raises:
        DataError: names the first annotation that is wrong, or says why nothing is
            left of the split.
    """
    source, content = tables.source, tables.content
    images = {row['id'] for row in content['images']}
    categories = {row['id'] for row in content['categories']}
    for row in content['annotations']:
        place = f'{source}: the annotation with id {row["id"]} has'
        if row['image_id'] not in images:
            raise DataError(
                f"{place} image_id {row['image_id']!r}, which is not in 'images'."
            )
        if row['category_id'] not in categories:
            raise DataError(
                f'{place} category_id {row["category_id"]!r}, which is not in '
                "'categories'."
            )
        box = row['bbox']
        if len(box) != 4 or not all(isinstance(x, Real) for x in box):
            raise DataError(f'{place} bbox {box!r}; give [x, y, width, height].')
        if options.masks and not _is_segmentation(row.get('segmentation')):
            raise DataError(
                f"{place} no 'segmentation' (polygons or a run-length code), which "
                "this config's mask head learns from; use a config without masks."
            )
    if all(row['iscrowd'] for row in content['annotations']):
        raise DataError(
            f'{source} has no annotations but crowds, so nothing can be learnt or '
            'scored.'
        )


def _is_segmentation(value) -> bool:
    """Whether it is what COCO keeps: polygons of 3 or more points, or an RLE."""
    if isinstance(value, dict):
        return {'counts', 'size'} <= value.keys()
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, list) and len(part) >= 6 for part in value)
    )
