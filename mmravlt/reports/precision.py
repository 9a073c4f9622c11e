"""Precision and recall of objects, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..pictures import COLOURS, STYLES, TEXT, new_figure, png, short

RECALLS = np.linspace(0, 1, 101)  # at which COCO takes precision
MOST = 100  # objects per image that COCO's AP is about
CLASSES_SHOWN = 7


@dataclass(frozen=True)
class Precision:
    """How well boxes or masks are found; NaN for classes without objects.

    Attributes:
        kind (str): 'box' or 'mask'.
        ap (ndarray): K, of each class the mean over IoU thresholds.
        ap50 (ndarray): K, at IoU 0.5.
        recall (ndarray): K, at IoU 0.5, with those predictions whose score is at least
            the threshold of the best F1.
        precision (ndarray): K, likewise.
        threshold (ndarray): K, these scores.
        curves (ndarray): K×101, the precision at IoU 0.5 at :data:`RECALLS`.
    """

    kind: str
    ap: np.ndarray
    ap50: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    threshold: np.ndarray
    curves: np.ndarray


def measure(truth: COCO, found: Iterable[dict], metric, iou_type: str) -> Precision:
    """Compare predictions with the truth in the way of a metric.

    Args:
        truth (COCO): the annotations.
        found (Iterable[dict]): in COCO's form of results.
        metric: mmdet's CocoMetric, after it has evaluated.
        iou_type (str): 'bbox' or 'segm'.

    Returns:
        Precision: whose ``ap`` has a mean that is the metric's mAP before rounding.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        done = COCOeval(truth, _results(truth, list(found)), iou_type)
        done.params.catIds, done.params.imgIds = metric.cat_ids, metric.img_ids
        thresholds = np.asarray(metric.iou_thrs, float).reshape(-1)
        if not np.isclose(thresholds, 0.5).any():
            thresholds = np.append(thresholds, 0.5)
        done.params.iouThrs = thresholds
        done.params.maxDets = sorted({MOST, metric.proposal_nums[-1]})
        # only objects of all sizes: a quarter of the time
        done.params.areaRng, done.params.areaRngLbl = [[0, 1e10]], ['all']
        done.evaluate()
        done.accumulate()
    # COCOeval has sorted the categories, the classes are in the order of the metric
    categories = list(done.params.catIds)
    order = [categories.index(category) for category in metric.cat_ids]
    # precision: IoU × recall × class × size × objects per image
    values = done.eval['precision'][:, :, order, 0]
    values = np.where(values < 0, np.nan, values)
    half = int(np.argmin(abs(thresholds - 0.5)))
    asked = values[: np.size(metric.iou_thrs), ..., done.params.maxDets.index(MOST)]
    curves = values[half, ..., -1].T
    images = len(done.params.imgIds)
    parts = [done.evalImgs[i * images : (i + 1) * images] for i in order]
    best = np.array([_best([p for p in part if p], half) for part in parts])
    recall, precision, threshold = best.reshape(-1, 3).T
    return Precision(
        'mask' if iou_type == 'segm' else 'box',
        asked.mean((0, 1)),
        curves.mean(1),
        recall,
        precision,
        threshold,
        curves,
    )


def _results(truth: COCO, found: list[dict]) -> COCO:
    if found:
        return truth.loadRes(found)
    empty = COCO()
    empty.dataset = dict(truth.dataset, annotations=[])
    empty.createIndex()
    return empty


def _best(images: list[dict], half: int) -> tuple[float, float, float]:
    """Recall, precision and score where F1 is highest.

    Args:
        images (list[dict]): what COCOeval found in each, of one class.
        half (int): the index of IoU 0.5 among the thresholds.
    """
    objects = sum(int((image['gtIgnore'] == 0).sum()) for image in images)
    if not objects:
        return (np.nan,) * 3
    scores = np.concatenate([image['dtScores'] for image in images])
    counted = ~np.concatenate([image['dtIgnore'][half] for image in images]).astype(
        bool
    )
    hits = np.concatenate([image['dtMatches'][half] for image in images]) > 0
    scores, hits = scores[counted], hits[counted]
    if not hits.any():
        return 0.0, np.nan, np.nan
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], hits[order].cumsum()
    numbers = np.arange(1, scores.size + 1)
    f1 = 2 * hits / (numbers + objects)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # a threshold cannot part equal scores
    i = int(f1.argmax())
    return hits[i] / objects, hits[i] / numbers[i], scores[i]


def draw_precision(
    parts: list[Precision], objects: list[int], classes: list[str], title: str
) -> bytes:
    """Draw precision over recall at IoU 0.5.

    Args:
        parts (list[Precision]): of boxes, and of masks, if there are any.
        objects (list[int]): how many there are of each class.
        classes (list[str]): in the order of their indices.
        title (str): of the whole.

    Returns:
        bytes: of a PNG file.
    """
    known = [i for i, number in enumerate(objects) if number]
    shown = sorted(known, key=lambda i: -objects[i])[:CLASSES_SHOWN]
    if len(known) > len(shown):
        title += f'\nthe {len(shown)} most frequent of {len(known)} classes'
    figure = new_figure(6.5 * len(parts), 5.2, title)
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=True):
        for place, i in enumerate(shown):
            axes.plot(
                RECALLS,
                part.curves[i],
                color=COLOURS[place],
                linestyle=STYLES[place % len(STYLES)],
                label=f'{short(classes[i])}: AP50 {part.ap50[i]:.3f}',
            )
        if len(known) > 1:
            mean = part.curves[known].mean(0)
            label = f'mean of {len(known)} classes: AP50 {mean.mean():.3f}'
            axes.plot(RECALLS, mean, color='black', linewidth=2.5, label=label)
        axes.set_title({'box': 'boxes', 'mask': 'masks'}[part.kind])
        axes.set_xlabel('recall')
        axes.set_ylabel('precision at IoU 0.5')
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=TEXT)
    return png(figure)
