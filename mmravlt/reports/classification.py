"""How well a classifier knows each class, and images that it takes for others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.summary import spread
from ..pictures import short
from .base import SAMPLES, TABLE, Report, ReportError, draw_panels, need_names
from .confusion import CONFUSION, draw_confusion
from .tables import as_csv, number

PANELS = 12
WRONG_SHOWN = 8  # of them at most


@dataclass(frozen=True)
class Guess:
    """An image of a class, and what it is taken for with which probability."""

    path: str
    truth: int
    guess: int
    score: float


class ClassificationReport(Report):
    """The report of a classifier of one class per image."""

    score = 'F1'

    def keep(self, sample: dict, position: int) -> Guess:
        """The classes of an image."""
        truth = sample['gt_label']
        if truth.numel() != 1:
            raise ReportError('images have several classes each')
        scores = sample['pred_score']
        guess = int(scores.argmax())
        return Guess(sample.get('img_path'), int(truth), guess, float(scores[guess]))

    def make(self, found: list[Guess], title: str) -> dict[str, Callable[[], bytes]]:
        """``per_class.csv``, ``confusion.png`` and ``samples.png``."""
        count = len(self.classes)
        pairs = np.array([(one.truth, one.guess) for one in found])
        need_names(pairs.max(), count)
        counts = np.bincount(pairs @ (count, 1), minlength=count**2)
        counts = counts.reshape(count, count)
        rows = class_rows(counts, self.classes)
        self.rows = rows
        return {
            TABLE: lambda: as_csv(rows),
            CONFUSION: lambda: draw_confusion(counts, self.classes, title),
            SAMPLES: lambda: self.draw(found, title),
        }

    def draw(self, found: list[Guess], title: str) -> bytes:
        """Draw images that were taken for another class first."""
        wrong = [one for one in found if one.guess != one.truth]
        right = [one for one in found if one.guess == one.truth]
        shown = spread(wrong, max(WRONG_SHOWN, PANELS - len(right)))
        shown = shown + spread(right, PANELS - len(shown))
        panels = []
        for one in shown:
            truth, guess = (short(self.classes[i], 20) for i in (one.truth, one.guess))
            mark = '✓' if one.guess == one.truth else '✗'
            words = f'{short(Path(one.path).name)}\ntruth: {truth}\n'
            words += f'{mark} {guess}, {one.score:.0%}'
            panels.append((words, self.read(one.path)[0], None))
        title += (
            f': {len(wrong)} of {len(found)} images taken for another class\n'
            'the truth, and the prediction with its probability'
        )
        return draw_panels(title, panels, 6, set(), [])


def class_rows(counts: np.ndarray, classes: list[str]) -> list[dict]:
    """Scores of each class in percent.

    Args:
        counts (ndarray): images by their class (rows) and by what they are taken for.
        classes (list[str]): in this order.
    """
    with np.errstate(invalid='ignore'):
        recall = 100 * counts.diagonal() / counts.sum(1)
        precision = 100 * counts.diagonal() / counts.sum(0)
        both = counts.sum(0) + counts.sum(1)
        f1 = 200 * counts.diagonal() / both
    return [
        {
            'class': name,
            'images': int(counts[i].sum()),
            'precision': number(precision[i], 2),
            'recall': number(recall[i], 2),
            'F1': number(f1[i], 2),
        }
        for i, name in enumerate(classes)
    ]
