"""A matrix of what is taken for what."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm

from ..pictures import SMALL, TEXT, new_figure, png, short

CONFUSION = 'confusion.png'
CLASSES_SHOWN = 25
NUMBERED = 12  # with more classes, numbers would be too small


def draw_confusion(counts: np.ndarray, classes: list[str], title: str) -> bytes:
    """Draw a matrix whose rows are fractions of each true class.

    Args:
        counts (ndarray): K×K, rows are the truth, columns the prediction.
        classes (list[str]): K names.
        title (str): of the whole.

    Returns:
        bytes: of a PNG file.
    """
    total = counts.sum(1)
    with np.errstate(invalid='ignore'):
        percent = 100 * counts / total[:, None]
    shown = np.arange(len(classes))
    if len(classes) > CLASSES_SHOWN:
        errors = counts - np.diag(counts.diagonal())
        confused = errors.sum(0) + errors.sum(1)
        order = np.argsort(-confused, kind='stable')[:CLASSES_SHOWN]
        occurs = total + counts.sum(0) > 0
        shown = np.sort(order[occurs[order]])
        title += f'\nthe {len(shown)} of {len(classes)} classes that are most often'
        title += ' taken for others, or others for them'
    cells = percent[np.ix_(shown, shown)]
    side = max(5.5, 3 + 0.42 * len(shown))
    figure = new_figure(side + 1.2, side, title)
    axes = figure.subplots()
    scale = PowerNorm(0.5, vmin=0, vmax=100)  # or a few percent would look like none
    drawn = axes.imshow(cells, cmap='cividis', norm=scale)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.set_label('% of the true class', fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    names = [short(classes[i], 18) for i in shown]
    axes.set_xticks(range(len(shown)), names, rotation=60, ha='right', fontsize=TEXT)
    axes.set_yticks(range(len(shown)), names, fontsize=TEXT)
    for label in axes.get_xticklabels():
        label.set_rotation_mode('anchor')
    axes.set_xlabel('prediction')
    axes.set_ylabel('truth')
    if len(shown) <= NUMBERED:
        for (y, x), value in np.ndenumerate(cells):
            if np.isfinite(value):
                ink = 'black' if scale(value) > 0.55 else 'white'
                words = f'{value:.0f}' if value >= 0.5 or not value else '<1'
                place = dict(ha='center', va='center', fontsize=TEXT, color=ink)
                axes.text(x, y, words, **place)
            elif x == y:
                place = dict(ha='center', va='center', fontsize=SMALL, color='black')
                axes.text(x, y, 'none', **place)
    return png(figure)
