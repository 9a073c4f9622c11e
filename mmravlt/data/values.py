"""The values of objects: boxes, shapes, areas and marks, as training will use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .base import DataError
from .boxes import check_format, read_boxes, upright_boxes
from .findings import Findings
from .image_tables import check_small
from .masks import NO_SHAPE, Shapes, measure_shapes

if TYPE_CHECKING:
    from .objects import ObjectTables


def check_values(
    tables: ObjectTables,
    split: str,
    masks: bool,
    findings: Findings,
    image_places: list[int],
) -> None:
    """Check all objects of a split; see :func:`mmravlt.data.objects.check_objects`.

    Args:
        tables (ObjectTables): changed in place.
        split (str): 'train' or 'val'.
        masks (bool): whether all need one.
        findings (Findings): what is left out or mended is counted there.
        image_places (list[int]): of each annotation, where its image is in ``images``.

    Raises:
        DataError: names the first annotation that is wrong, or says why nothing is
            left.
    """
    check = _Check(tables, split, findings, image_places)
    small = check_small(tables.source, check.images, split, findings)
    check.read_crowds()
    shapes = measure_shapes(check.rows, check.sizes, check.place, masks)
    boxes = check.mend_boxes(shapes)
    check.mend_shapes(shapes, masks)
    check.mend_areas(shapes, boxes)
    check.finish(small, masks)


class _Check:
    """What is known of the annotations of a split; see :func:`check_values`."""

    def __init__(
        self,
        tables: ObjectTables,
        split: str,
        findings: Findings,
        image_places: list[int],
    ) -> None:
        self.tables, self.split, self.findings = tables, split, findings
        self.images = tables.content['images']
        self.rows = tables.content['annotations']
        self.image_places = image_places
        sizes = [(image['width'], image['height']) for image in self.images]
        self.sizes = np.array(sizes)[image_places].reshape(-1, 2)
        self.kept = np.ones(len(self.rows), bool)

    def name(self, i: int) -> str:
        """An annotation as examples name it, by its index."""
        image = self.images[self.image_places[i]]['file_name']
        number = self.rows[i].get('id')
        named = (
            'an annotation' if number is None else f'the annotation with id {number!r}'
        )
        return f'{named} in {image!r} has'

    def place(self, i: int) -> str:
        """An annotation as an error begins with it."""
        return f'{self.tables.source}: {self.name(i)}'

    def note(self, which: np.ndarray, reason: str, value: Callable[[int], str]) -> None:
        """Count annotations; ``value`` tells by an index what the first one has."""
        if which.any():
            first = int(which.argmax())
            example = f'{self.name(first)} {value(first)}'
            self.findings.add(self.split, reason, example, int(which.sum()))

    def mend(
        self, which: np.ndarray, reason: str, value: Callable[[int], str]
    ) -> list[int]:
        """Count those of some annotations that are kept, and give their indices."""
        which = which & self.kept
        self.note(which, reason, value)
        self.tables.changed |= bool(which.any())
        return np.flatnonzero(which).tolist()

    def leave_out(
        self, which: np.ndarray, reason: str, value: Callable[[int], str]
    ) -> None:
        """Take out annotations, with the reason of those that are still there."""
        left = self.mend(which, f'{reason}, and are left out', value)
        self.kept[left] = False

    def key(self, key: str) -> Callable[[int], str]:
        """Tells what an annotation has under a key."""
        return lambda i: f'{key} {self.rows[i].get(key)!r}'

    def read_crowds(self) -> None:
        """Make ``iscrowd`` 0 or 1; what is to be ignored becomes a crowd."""
        flags = {}
        for name in ('iscrowd', 'ignore'):
            values = [row.get(name) for row in self.rows]
            for i, value in enumerate(values):
                if value not in (0, 1, None):
                    raise DataError(f'{self.place(i)} {name} {value!r}; give 0 or 1.')
            if name == 'iscrowd' and set(map(type, values)) != {int}:
                for row in self.rows:
                    row['iscrowd'] = int(row.get('iscrowd') or 0)
                self.tables.changed |= bool(self.rows)
            flags[name] = np.array([bool(value) for value in values], bool)
        self.note(
            flags['iscrowd'],
            'objects are crowds, which are neither learnt nor scored',
            self.key('iscrowd'),
        )
        self.note(
            flags['ignore'] & ~flags['iscrowd'],
            'objects are to be ignored: they are neither learnt nor scored',
            self.key('ignore'),
        )
        for i in np.flatnonzero(flags['ignore']):
            self.rows[i].update(iscrowd=1, ignore=0)
            self.tables.changed = True

    def mend_boxes(self, shapes: Shapes) -> np.ndarray:
        """Check boxes, mend or leave out; returns N×4: x, y, width, height."""
        boxes = read_boxes(self.rows, self.place)
        known = shapes.boxes.copy()
        known[[i for i, _ in shapes.dropped]] = np.nan  # these cover less
        wrong = check_format(self.tables.source, boxes, known, self.sizes, self.place)
        limits = np.tile(self.sizes, 2)
        inside = shapes.boxes.clip(0, limits)
        from_shapes = np.hstack([inside[:, :2], inside[:, 2:] - inside[:, :2]])
        has_shape = ~np.isnan(from_shapes).any(1)
        missing = np.isnan(boxes).any(1)
        empty = ~missing & (boxes[:, 2:] <= 0).any(1)
        if (missing & ~has_shape).any():
            i = int((missing & ~has_shape).argmax())
            raise DataError(f'{self.place(i)} no bbox; give [x, y, width, height].')
        changed = []
        for which, reason in (
            (missing | (empty & has_shape), 'boxes are missing or empty'),
            (wrong, 'boxes disagree with the shape of their own object'),
        ):
            reason = f'{reason}, and are taken from the shape'
            chosen = self.mend(which, reason, self.key('bbox'))
            boxes[chosen] = from_shapes[chosen]
            changed += chosen
        angles = self.read_angles()
        turned = ~has_shape & (angles % 180 != 0)
        reason = 'boxes are turned, and are taken as the upright boxes around them'
        chosen = self.mend(turned, reason, lambda i: f'rotation {angles[i]:g}')
        boxes[chosen] = upright_boxes(boxes[chosen], angles[chosen])
        for i in [*changed, *chosen]:
            self.rows[i]['bbox'] = boxes[i].tolist()
        ends = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        clipped = ends.clip(0, limits)
        sides = clipped[:, 2:] - clipped[:, :2]
        box = self.key('bbox')
        self.leave_out(
            (boxes[:, 2:] <= 0).any(1),
            'objects have a box whose width or height is 0 or negative',
            box,
        )
        held = clipped.astype(np.float32)  # as training holds boxes
        self.leave_out(
            (held[:, 2:] <= held[:, :2]).any(1),
            'objects have a box wholly outside their image',
            box,
        )
        cut = (np.abs(ends - clipped) > 1).any(1)
        self.leave_out(
            (boxes[:, 2:] < 1).any(1) | (cut & (sides < 1).any(1)),
            'objects are below one pixel in width or height',
            box,
        )
        reason = 'boxes reach out of their image and are cut at its border'
        chosen = self.mend(cut, reason, box)
        boxes[chosen] = np.hstack([clipped[:, :2], sides])[chosen]
        for i in chosen:
            self.rows[i]['bbox'] = boxes[i].tolist()
        return boxes

    def read_angles(self) -> np.ndarray:
        """By how many degrees boxes are turned, where CVAT and Datumaro tell it."""
        angles = np.zeros(len(self.rows))
        for i, row in enumerate(self.rows):
            attributes = row.get('attributes')
            angle = (
                attributes
                and isinstance(attributes, dict)
                and attributes.get('rotation')
            )
            if angle:
                try:
                    angles[i] = float(angle)
                except (TypeError, ValueError, OverflowError):
                    angles[i] = np.nan
                if not np.isfinite(angles[i]):
                    raise DataError(
                        f'{self.place(i)} rotation {angle!r} among its attributes; '
                        'give degrees.'
                    )
        return angles

    def mend_shapes(self, shapes: Shapes, masks: bool) -> None:
        """Drop broken parts of polygons, and objects without a mask if all need one."""
        without = sum(fault == NO_SHAPE for fault in shapes.faults.values())
        if masks and 2 * without > len(self.rows):
            i = next(i for i, fault in shapes.faults.items() if fault == NO_SHAPE)
            raise DataError(
                f'{self.place(i)} no segmentation (polygons or a run-length code), as '
                f'{without} of {len(self.rows)} have none, but the mask head of this '
                'config learns from it; use a config without masks.'
            )
        groups: dict[str, np.ndarray] = {}
        for i, fault in shapes.faults.items():
            groups.setdefault(fault, np.zeros(len(self.rows), bool))[i] = True
        for fault, which in groups.items():
            if masks:
                self.leave_out(which, f'objects have {fault}', lambda i: 'no mask')
            elif fault != NO_SHAPE:
                reason = f'objects have {fault}; their boxes are used all the same'
                self.note(which & self.kept, reason, lambda i: 'no mask')
        if not masks:
            return
        wrapped = np.zeros(len(self.rows), bool)
        wrapped[list(shapes.mended.keys() - {i for i, _ in shapes.dropped})] = True
        reason = 'polygons are no list of parts, and are taken for the only one'
        self.note(wrapped & self.kept, reason, lambda i: 'numbers in its segmentation')
        for i, fault in shapes.dropped:
            if self.kept[i]:
                reason = f'parts of polygons have {fault} and are left out'
                example = f'{self.name(i)} other parts that are used'
                self.findings.add(self.split, reason, example)
        for i, polygons in shapes.mended.items():
            self.rows[i]['segmentation'] = polygons
            self.tables.changed = True

    def mend_areas(self, shapes: Shapes, boxes: np.ndarray) -> None:
        """Take areas that cannot be from the shape, or else from the box."""
        values = [row.get('area') for row in self.rows]
        values = [x if type(x) in (int, float) else np.nan for x in values]
        areas = np.array([x if abs(x) < 1e300 else np.nan for x in values], float)
        wrong = ~((areas > 0) & (areas <= self.sizes.prod(1)))
        reason = 'areas are missing or impossible, and are taken from the shape or box'
        found = np.where(shapes.areas > 0, shapes.areas, boxes[:, 2:].prod(1))
        for i in self.mend(wrong, reason, self.key('area')):
            self.rows[i]['area'] = float(found[i])

    def finish(self, small: set, masks: bool) -> None:
        """Take out what is left out, and count what is left."""
        rows = [row for row, kept in zip(self.rows, self.kept, strict=True) if kept]
        objects = [
            row for row in rows if not row['iscrowd'] and row['image_id'] not in small
        ]
        if not objects:
            self.findings.refuse(
                self.split,
                f'{self.tables.source} has no object that can be learnt or scored'
                f'{" (with a mask)" if masks else ""}.',
            )
        self.tables.content['annotations'] = rows
        filled = {row['image_id'] for row in rows}
        empty = [x for x in self.images if x['id'] not in filled]
        if empty:
            reason = 'images have no objects'
            if self.split == 'train':
                reason += '; training leaves them out where filter_empty_gt is set'
            example = repr(empty[0]['file_name'])
            self.findings.add(self.split, reason, example, len(empty))
        used = {row['category_id'] for row in objects}
        categories = self.tables.content['categories']
        unused = [row['name'] for row in categories if row['id'] not in used]
        if unused:
            names = ', '.join(map(repr, unused[:10]))
            self.findings.add(self.split, 'classes never occur', names, len(unused))
