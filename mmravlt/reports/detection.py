"""How well a detector finds the objects of each class, and images with some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ..data.summary import spread
from ..pictures import draw_objects, outlines, short
from .base import SAMPLES, SAMPLES_SHOWN, TABLE, Report, ReportError, draw_panels
from .precision import Precision, draw_precision, measure
from .tables import as_csv, number

CURVES = 'pr_curves.png'
SCORE = 0.3  # from which objects are drawn where no better threshold is known


class DetectionReport(Report):
    """The report of a detector that mmdet's CocoMetric evaluates."""

    digits = 3  # of numbers from 0 to 1

    def __init__(self, dataset, metrics: list, bit_depth: int) -> None:
        from mmdet.evaluation import CocoMetric

        super().__init__(dataset, metrics, bit_depth)
        self.coco = next((m for m in metrics if isinstance(m, CocoMetric)), None)
        if self.coco is None:
            raise ReportError('the evaluator is no CocoMetric')
        self.kinds = [kind for kind in self.coco.metrics if kind in ('bbox', 'segm')]
        if not self.kinds:
            raise ReportError('the evaluator measures neither boxes nor masks')
        self.score = 'mask_AP' if 'segm' in self.kinds else 'box_AP'

    def keep(self, sample: dict, position: int) -> dict:
        """What the metric keeps, where masks are run-length encoded, and the path."""
        _, found = self.coco.results[position]
        return dict(found, path=sample['img_path'])

    def make(self, found: list[dict], title: str) -> dict[str, Callable[[], bytes]]:
        """``per_class.csv``, ``pr_curves.png`` and ``samples.png``."""
        truth, ids = self.coco._coco_api, self.coco.cat_ids
        classes = [category['name'] for category in truth.loadCats(ids)]
        objects = self.count(found)

        @cache  # for several files
        def parts() -> list[Precision]:
            done = [
                measure(truth, _as_results(found, ids, kind), self.coco, kind)
                for kind in self.kinds
            ]
            self.rows = class_rows(done, objects, classes)
            return done

        def table() -> bytes:
            parts()
            return as_csv(self.rows)

        return {
            TABLE: table,
            CURVES: lambda: draw_precision(parts(), objects, classes, title),
            SAMPLES: lambda: self.draw(found, parts(), classes, title),
        }

    def count(self, found: list[dict]) -> list[int]:
        """How many objects there are of each class; crowds are not counted."""
        counts = dict.fromkeys(self.coco.cat_ids, 0)
        for image in found:
            for row in self.truth(image):
                counts[row['category_id']] += 1
        return list(counts.values())

    def truth(self, image: dict) -> list[dict]:
        """The annotations of an image that count."""
        truth = self.coco._coco_api
        rows = truth.loadAnns(truth.getAnnIds([image['img_id']], self.coco.cat_ids))
        return [r for r in rows if not (r.get('iscrowd') or r.get('ignore'))]

    def draw(
        self, found: list[dict], parts: list[Precision], classes: list[str], title: str
    ) -> bytes:
        """Draw the truth of some images, and beside it the prediction."""
        filled = [image for image in found if self.truth(image)]
        shown = spread(filled or found, SAMPLES_SHOWN)
        thresholds = np.full(len(classes), SCORE)
        for part in parts[:1]:  # that of boxes, by which objects are scored
            known = np.isfinite(part.threshold)
            thresholds[known] = part.threshold[known]
        panels, used = [], set()
        for image in shown:
            pixels, step = self.read(image['path'])
            truth = list(self.labelled(image, classes))
            guesses = list(self.predicted(image, classes, thresholds))
            used |= {index for index, *_ in (*truth, *guesses)}
            name = short(Path(image['path']).name)
            for words, objects in (
                (f'{name}: {len(truth)} objects', truth),
                (f'prediction: {len(guesses)} objects', guesses),
            ):
                draw = partial(draw_objects, objects=objects, step=step)
                panels.append((words, pixels, draw))
        title += (
            '\nthe truth (left of each pair), and what is found with a score of at '
            f'least {_span(thresholds)} (the best F1 of each class)'
        )
        return draw_panels(title, panels, 4, used, classes)

    def labelled(self, image: dict, classes: list[str]) -> Iterator[tuple]:
        """The true objects of an image, as they are drawn."""
        index = {number: i for i, number in enumerate(self.coco.cat_ids)}
        for row in self.truth(image):
            polygons = []
            if 'segm' in self.kinds and row.get('segmentation'):
                polygons = outlines(self.coco._coco_api.annToMask(row))
            i = index[row['category_id']]
            yield i, row['bbox'], polygons, *_names(i, classes)

    def predicted(
        self, image: dict, classes: list[str], thresholds: np.ndarray
    ) -> Iterator[tuple]:
        """The objects found in an image with scores that are high enough."""
        sure = image['scores'] >= thresholds[image['labels']]
        for i in np.flatnonzero(sure):
            label = int(image['labels'][i])
            polygons = []
            if 'masks' in image and 'segm' in self.kinds:
                polygons = outlines(coco_mask.decode(image['masks'][i]))
            name = ' '.join([*_names(label, classes), f'{image["scores"][i]:.2f}'])
            yield label, _corner_and_size(image['bboxes'][i]), polygons, name


def class_rows(
    parts: list[Precision], objects: list[int], classes: list[str]
) -> list[dict]:
    """Scores of each class, from 0 to 1."""
    rows: list[dict] = []
    for i, name in enumerate(classes):
        row = {'class': name, 'objects': objects[i]}
        for part in parts:
            for column, values in (
                ('AP', part.ap),
                ('AP50', part.ap50),
                ('recall', part.recall),
                ('precision', part.precision),
                ('score_threshold', part.threshold),
            ):
                row[f'{part.kind}_{column}'] = number(values[i])
        rows.append(row)
    return rows


def _names(index: int, classes: list[str]) -> list[str]:
    """What to write at an object: nothing where there is only one class."""
    return [short(classes[index], 16)] if len(classes) > 1 else []


def _as_results(found: list[dict], ids: list[int], kind: str) -> Iterator[dict]:
    """Predictions as COCO has them; the area of a mask is not that of its box."""
    for image in found:
        scores = image['scores']
        if kind == 'segm':
            scores = image.get('mask_scores', scores)
        for i, label in enumerate(image['labels']):
            place = (
                dict(segmentation=image['masks'][i])
                if kind == 'segm'
                else dict(bbox=_corner_and_size(image['bboxes'][i]))
            )
            yield dict(
                image_id=image['img_id'],
                category_id=ids[int(label)],
                score=float(scores[i]),
                **place,
            )


def _corner_and_size(box: np.ndarray) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]


def _span(values: np.ndarray) -> str:
    low, high = f'{values.min():.2f}', f'{values.max():.2f}'
    return low if low == high else f'{low} to {high}'
