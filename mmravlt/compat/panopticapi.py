"""Stand in for panopticapi, which mmdet reads and scores panoptic data with.

After ``install()`` the five names that mmdet takes of it are there; an installed
panopticapi is left alone.

Upstream: https://github.com/cocodataset/panopticapi is in no package index, so an
environment made from one lacks it, and mmdet 3.3.0 and onedl-mmdetection 3.5.1 raise
where a panoptic config is used. May go when mmdet brings its own, or pip installs it.

Panoptic quality is that of Kirillov et al., CVPR 2019 (https://arxiv.org/abs/1801.00868),
per class, from matched segments (IoU above one half, TP) and unmatched ones (FP, FN):
PQ = SQ · RQ, SQ = mean IoU of the matched, RQ = TP / (TP + FP/2 + FN/2).
"""

import importlib.util
import sys
from collections import defaultdict
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

import numpy as np

VOID = 0  # the segment of pixels that are in none
OFFSET = 256**3  # more than any segment in three bytes


def rgb2id(color: np.ndarray) -> np.ndarray:
    """Segments (H, W), int32, of their colours (H, W, 3): R + 256 G + 256² B."""
    return np.asarray(color).astype(np.int32) @ np.array([1, 256, 256**2], np.int32)


def id2rgb(ids: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3), uint8, of segments (H, W)."""
    return (np.asarray(ids)[..., None] >> np.array([0, 8, 16]) & 255).astype(np.uint8)


@dataclass
class PQStatCat:
    """Counts of one class: sum of the IoU of matched segments, TP, FP and FN."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: 'PQStatCat') -> 'PQStatCat':
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


class PQStat:
    """Counts of all classes, by the ids of their categories."""

    def __init__(self) -> None:
        self.pq_per_cat = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(
        self, categories: dict[int, dict], isthing: bool | None
    ) -> tuple[dict, dict]:
        """Average over the classes that there are segments of.

        Args:
            categories (dict): by id; each with ``isthing``.
            isthing (bool | None): takes things or stuff only; None takes both.

        Returns:
            tuple[dict, dict]: means ``pq``, ``sq``, ``rq`` (0–1, nan without a class)
            over ``n`` classes; and the three of each class.
        """
        per_class, seen = {}, []
        for label, category in categories.items():
            if isthing is not None and bool(category['isthing']) != isthing:
                continue
            counts = self.pq_per_cat[label]
            segments = counts.tp + (counts.fp + counts.fn) / 2
            scores = dict(
                pq=counts.iou / segments if segments else 0.0,
                sq=counts.iou / counts.tp if counts.tp else 0.0,
                rq=counts.tp / segments if segments else 0.0,
            )
            per_class[label] = scores
            if segments:
                seen.append(scores)
        means = {
            key: sum(scores[key] for scores in seen) / len(seen) if seen else np.nan
            for key in ('pq', 'sq', 'rq')
        }
        return dict(means, n=len(seen)), per_class


def install() -> None:
    """Make ``panopticapi`` importable where it is not installed.

    May be called any number of times; before mmdet is imported.
    """
    if importlib.util.find_spec('panopticapi'):
        return
    parts = dict(
        utils=dict(rgb2id=rgb2id, id2rgb=id2rgb),
        evaluation=dict(VOID=VOID, OFFSET=OFFSET, PQStat=PQStat),
    )
    package = _module('panopticapi', is_package=True)
    for name, members in parts.items():
        module = _module(f'panopticapi.{name}')
        vars(module).update(members)
        setattr(package, name, module)


def _module(name: str, is_package: bool = False):
    spec = ModuleSpec(name, None, is_package=is_package, origin=__file__)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return sys.modules[name]
