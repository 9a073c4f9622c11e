"""What a training has reached, as a table and as curves in its work dir."""

from __future__ import annotations

import csv
import math
import time
from numbers import Real
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..pictures import COLOURS, STYLES, TEXT, new_figure, plain, png, replace_file
from ..reports.tables import as_csv

TABLE, CURVES = 'results.csv', 'curves.png'


class ResultsHook(Hook):
    """Writes ``results.csv`` and ``curves.png`` after every evaluation.

    A row has the epoch, the iteration, the learning rate, the minutes since the start,
    the mean of each loss since the row before, and every score. A resumed training goes
    on below the rows that it has reached.

    Args:
        score (str): name of the score by which the training is judged; '' for none.
    """

    priority = 'VERY_LOW'  # the losses and scores of the step are there

    def __init__(self, score: str) -> None:
        self.score = score
        self.rows: list[dict] = []
        self.start = time.monotonic()
        self.minutes_before = 0.0

    def before_train(self, runner) -> None:
        """Read the rows of the training that this one resumes."""
        path = Path(runner.work_dir) / TABLE
        if is_main_process() and runner.iter and path.exists():
            with path.open(newline='', encoding='utf-8') as file:
                rows = [_numbers(row) for row in csv.DictReader(file)]
            self.rows = [row for row in rows if row['iteration'] <= runner.iter]
            self.minutes_before = self.rows[-1]['minutes'] if self.rows else 0.0
        self.start = time.monotonic()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Add a row."""
        if not is_main_process():
            return
        before = self.rows[-1]['iteration'] if self.rows else 0
        minutes = self.minutes_before + (time.monotonic() - self.start) / 60
        row = dict(epoch=runner.epoch, iteration=runner.iter)
        row['learning_rate'] = _learning_rate(runner)
        row['minutes'] = round(minutes, 2)
        row.update(_losses(runner, int(runner.iter - before)))
        scores = {k: v for k, v in (metrics or {}).items() if isinstance(v, Real)}
        self.rows.append({**row, **scores})
        folder = Path(runner.work_dir)
        replace_file(folder / TABLE, as_csv(self.rows))
        replace_file(folder / CURVES, draw_curves(self.rows, self.score))

    @property
    def best(self) -> dict | None:
        """The row with the best score."""
        rows = [r for r in self.rows if math.isfinite(r.get(self.score, math.nan))]
        return max(rows, key=lambda row: row[self.score], default=None)


def _numbers(row: dict[str, str]) -> dict:
    return {key: float(text) for key, text in row.items() if text}


def _learning_rate(runner) -> float:
    rates = runner.optim_wrapper.get_lr()
    return max(rate for group in rates.values() for rate in group)


def _losses(runner, steps: int) -> dict[str, float]:
    """The mean of each loss over the last steps."""
    logged = runner.message_hub.log_scalars
    return {
        name.removeprefix('train/'): float(history.mean(max(steps, 1)))
        for name, history in logged.items()
        if name.startswith('train/') and 'loss' in name
    }


def draw_curves(rows: list[dict], score: str) -> bytes:
    """Draw losses, scores and the learning rate over the iterations.

    Args:
        rows (list[dict]): of the table.
        score (str): the one to judge by, which is drawn thickest.

    Returns:
        bytes: of a PNG file.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    losses = [name for name in names if 'loss' in name]
    group = score.rpartition('/')[0]
    scores = [n for n in names if n != score and n.rpartition('/')[0] == group]
    known = ('epoch', 'iteration', 'learning_rate', 'minutes', *losses)
    scores = [score, *(name for name in scores if name not in known)]
    figure = new_figure(13, 4)
    panels = figure.subplots(1, 3)
    shown = (('loss', losses), ('score', scores), ('learning rate', ['learning_rate']))
    for panel, (title, lines) in zip(panels, shown, strict=True):
        for i, line in enumerate(lines):
            # COCO's scores are -1 where there are no objects of a kind
            points = [(r['iteration'], r[line]) for r in rows if r.get(line, -1) >= 0]
            if not points:
                continue
            panel.plot(
                *zip(*points, strict=True),
                marker='o',
                markersize=4,
                color=COLOURS[i % len(COLOURS)],
                linestyle=STYLES[i % len(STYLES)],
                linewidth=3 if line in (score, 'loss') else 1.5,
                label=plain(line.rpartition('/')[2]),
            )
        panel.set_title(title)
        panel.set_xlabel('iteration')
        panel.grid(alpha=0.3)
        if len(lines) > 1:
            panel.legend(fontsize=TEXT)
    return png(figure)
