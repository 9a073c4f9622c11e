"""How well a segmentor knows each class, and maps beside their truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..data.maps import IGNORED
from ..data.summary import spread
from ..pictures import shrink
from .base import SAMPLES, SAMPLES_SHOWN, TABLE, Report, need_names
from .confusion import CONFUSION, draw_confusion
from .maps import Maps, draw_maps
from .tables import as_csv, number


@dataclass(frozen=True)
class Pixels:
    """What the pixels of an image are and are taken for.

    Attributes:
        pairs (ndarray): truth · K + prediction, of those that occur. A truth of K is a
            label that no class has.
        counts (ndarray): pixels of each pair.
        maps (Maps | None): for a picture.
    """

    pairs: np.ndarray
    counts: np.ndarray
    maps: Maps | None


class SegmentationReport(Report):
    """The report of a segmentor."""

    score = 'IoU'

    def __init__(self, dataset, metrics: list, bit_depth: int) -> None:
        super().__init__(dataset, metrics, bit_depth)
        ignored = [getattr(metric, 'ignore_index', None) for metric in metrics]
        self.ignored = next((i for i in ignored if i is not None), IGNORED)
        # twice as many as are shown, because some may have no labelled pixels
        places = spread(range(len(dataset)), 2 * SAMPLES_SHOWN)
        self.shown = {dataset.get_data_info(i)['img_path'] for i in places}

    def keep(self, sample: dict, position: int) -> Pixels:
        """Count the pixels of an image."""
        guess = sample['pred_sem_seg']['data'].squeeze().long()
        truth = sample['gt_sem_seg']['data'].squeeze().to(guess)
        count, known = len(self.classes), truth != self.ignored
        need_names(guess.max(), count)
        pairs = truth[known].clamp(max=count) * count + guess[known]
        counts = torch.bincount(pairs, minlength=count * (count + 1)).cpu().numpy()
        (found,) = counts.nonzero()
        maps = None
        if sample['img_path'] in self.shown:
            truth = torch.where(known, truth, IGNORED)
            maps = Maps(
                sample['img_path'],
                *(shrink(x.cpu().numpy().astype(np.uint16))[0] for x in (truth, guess)),
            )
        return Pixels(found, counts[found], maps)

    def make(self, found: list[Pixels], title: str) -> dict[str, Callable[[], bytes]]:
        """``per_class.csv``, ``confusion.png`` and ``samples.png``."""
        count = len(self.classes)
        counts = np.zeros(count * (count + 1), np.int64)
        for image in found:
            counts[image.pairs] += image.counts
        counts = counts.reshape(count + 1, count)
        rows = self.rows = class_rows(counts, self.classes)
        shown = [image.maps for image in found if image.maps]
        labelled = [maps for maps in shown if (maps.truth != IGNORED).any()]
        shown = spread(labelled or shown, SAMPLES_SHOWN)
        return {
            TABLE: lambda: as_csv(rows),
            CONFUSION: lambda: draw_confusion(counts[:-1], self.classes, title),
            SAMPLES: lambda: draw_maps(shown, self.read, self.classes, title),
        }


def class_rows(counts: np.ndarray, classes: list[str]) -> list[dict]:
    """Scores of each class in percent.

    Args:
        counts (ndarray): (K + 1)×K pixels, by their class (rows; the last one is of
            labels that no class has) and by what they are taken for.
        classes (list[str]): K names.
    """
    hits, guessed, pixels = counts.diagonal(), counts.sum(0), counts[:-1].sum(1)
    with np.errstate(invalid='ignore'):
        iou = 100 * hits / (guessed + pixels - hits)
        accuracy, precision = 100 * hits / pixels, 100 * hits / guessed
    return [
        {
            'class': name,
            'pixels': int(pixels[i]),
            'IoU': number(iou[i], 2),
            'accuracy': number(accuracy[i], 2),
            'precision': number(precision[i], 2),
        }
        for i, name in enumerate(classes)
    ]
