"""What the reports of all tasks share: how they collect, and what they draw on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from mmengine.evaluator import BaseMetric

from ..data.images import read_image
from ..pictures import SMALL, TEXT, add_legend, new_figure, plain, png, shrink
from .tables import as_text

TABLE = 'per_class.csv'
SAMPLES = 'samples.png'
SAMPLES_SHOWN = 8  # images with their truth and a prediction


class ReportError(Exception):
    """There is nothing to report; the message says why."""


def need_names(highest: int, count: int) -> None:
    """Make sure that each class has a name.

    Args:
        highest (int): the highest index of a class.
        count (int): of the names.

    Raises:
        ReportError: if one has none.
    """
    if highest >= count:
        raise ReportError(
            f'the model tells more classes apart than the {count} that the data names'
        )


def in_words(error: Exception) -> str:
    """An error in one line."""
    kind = '' if isinstance(error, ReportError) else f'{type(error).__name__}: '
    return kind + str(error).split('\n')[0]


class Report(BaseMetric):
    """Keeps what an evaluation finds in each image, and makes files of it.

    It stands among the metrics of an evaluation, so that MMEngine brings together what
    several processes found and leaves out what a sampler gave twice; it adds no score.

    Args:
        dataset: the one to evaluate on, of any library.
        metrics (list): that stand before it, which may have found out the same.
        bit_depth (int): in use of images with more than 8 bits per value.

    Attributes:
        found (list | None): what :meth:`keep` gave for each image of the first
            evaluation since this was None, in the main process. (A hook that averages
            weights may evaluate the other ones after that.)
        rows (list[dict]): of the classes, as in the last ``per_class.csv``.
        score (str): the column by which classes are ordered for people.
        digits (int): after the point, for people.
    """

    default_prefix = 'report'
    score = ''
    digits = 1  # of percentages

    def __init__(self, dataset, metrics: list, bit_depth: int) -> None:
        super().__init__()
        self.dataset, self.metrics, self.bit_depth = dataset, metrics, bit_depth
        self.classes = list(dataset.metainfo['classes'])
        self.found: list | None = None
        self.rows: list[dict] = []

    def process(self, data_batch: Any, data_samples: list[dict]) -> None:
        """Keep a batch; what goes wrong is kept, too, to be told later."""
        for i, sample in enumerate(data_samples):
            try:
                kept = self.keep(sample, i - len(data_samples))
            except Exception as error:  # of whatever kind; the evaluation goes on
                kept = ReportError(in_words(error))
            self.results.append(kept)

    def compute_metrics(self, results: list) -> dict:
        """Take what all processes kept."""
        if self.found is None:
            self.found = results
        return {}

    def files(self, found: list, title: str) -> dict[str, Callable[[], bytes]]:
        """The files to write, and how the content of each is made.

        Args:
            found (list): of one evaluation.
            title (str): says of which.

        Raises:
            ReportError: if something could not be kept.
        """
        for kept in found:
            if isinstance(kept, ReportError):
                raise kept
        if not found:
            raise ReportError('nothing was evaluated')
        return self.make(found, title)

    def text(self) -> str:
        """:attr:`rows` for a terminal."""
        return as_text(self.rows, self.score, self.digits, TABLE)

    @abstractmethod
    def keep(self, sample: dict, position: int) -> Any:
        """What is needed of an image: as little as can be, for there may be thousands.

        Args:
            sample (dict): the library's data sample, as metrics get it.
            position (int): of what the other metrics kept last: -1 for the last image
                of the batch.
        """

    @abstractmethod
    def make(self, found: list, title: str) -> dict[str, Callable[[], bytes]]:
        """As :meth:`files`."""

    def read(self, path: str | Path) -> tuple[np.ndarray, int]:
        """An image for a picture, RGB, by :func:`mmravlt.pictures.shrink`."""
        return shrink(read_image(path, self.bit_depth)[..., ::-1])


def draw_panels(
    title: str,
    panels: list[tuple[str, np.ndarray, Callable[[Axes], None] | None]],
    columns: int,
    used: set[int],
    classes: list[str],
    note: str = '',
) -> bytes:
    """Draw images side by side.

    Args:
        title (str): of the whole.
        panels (list[tuple]): the title of each, its image, H×W×3 RGB, and what draws on
            it, if anything.
        columns (int): of panels.
        used (set[int]): the classes to explain.
        classes (list[str]): in the order of their indices.
        note (str): in small print below.

    Returns:
        bytes: of a PNG file.
    """
    columns = min(columns, len(panels))
    shapes = [image.shape[0] / image.shape[1] for _, image, _ in panels]
    rows = -(-len(panels) // columns)
    width = 13 / max(columns, 3)
    words = 0.17 * max(name.count('\n') + 1 for name, *_ in panels)
    height = width * float(np.clip(np.median(shapes), 0.4, 1.5)) + words
    above = 0.9 + rows * height
    below = 0.1 + 0.13 * (note.count('\n') + 1) if note else 0.01
    figure = new_figure(13, above + below, title)
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below])
    bottom.text(0.005, 1, plain(note), fontsize=SMALL, verticalalignment='top')
    grid = top.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, (name, image, draw) in zip(grid.flat, panels, strict=False):
        axes.imshow(image)
        axes.set_title(name, fontsize=TEXT)
        if draw:
            draw(axes)
    add_legend(top, used, classes)
    return png(figure)
