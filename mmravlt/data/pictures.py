"""A picture of what is in prepared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from ..pictures import (
    COLOURS,
    TEXT,
    add_legend,
    draw_objects,
    new_figure,
    png,
    replace_file,
    short,
    shrink,
    tinted,
)
from .images import read_image
from .maps import IGNORED
from .summary import Sample, Summary

CLASSES_SHOWN = 25


def draw_data(
    summaries: dict[str, Summary], classes: list[str], title: str, path: Path, bits: int
) -> None:
    """Draw class counts, sizes and samples of all splits.

    Args:
        summaries (dict[str, Summary]): by the names of the splits.
        classes (list[str]): in the order of their indices.
        title (str): of the whole.
        path (Path): of the PNG file.
        bits (int): how many are in use per value of the images.
    """
    columns = max(len(summary.samples) for summary in summaries.values()) or 1
    rows = len(summaries)
    figure = new_figure(13, 4.2 + 2.9 * rows, title)
    top, bottom = figure.subfigures(2, 1, height_ratios=[4, 2.9 * rows])
    has_objects = any(summary.object_sizes for summary in summaries.values())
    widths = [2, 1, 1] if has_objects else [2, 1]
    panels = top.subplots(1, len(widths), width_ratios=widths)
    _draw_counts(panels[0], summaries)
    _draw_image_sizes(panels[1], summaries)
    if has_objects:
        _draw_object_sizes(panels[2], summaries)
    grid = bottom.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for row, split in zip(grid, summaries, strict=True):
        for axes, sample in zip(row, summaries[split].samples, strict=False):
            draw_sample(axes, sample, bits)
            shown = short(sample.label or sample.path.name)
            axes.set_title(f'{split}: {shown}', fontsize=TEXT)
    samples = [sample for x in summaries.values() for sample in x.samples]
    add_legend(bottom, (i for x in samples for i in _classes_of(x)), classes)
    replace_file(path, png(figure))


def _classes_of(sample: Sample) -> set[int]:
    if sample.label_map is not None:
        return set(np.unique(sample.label_map).tolist()) - {IGNORED}
    return {index for index, *_ in sample.boxes}


def _draw_counts(axes: Axes, summaries: dict[str, Summary]) -> None:
    """Bars for each class, the most frequent ones of the first split first."""
    first = next(iter(summaries.values()))
    names = sorted(first.counts, key=lambda name: -first.counts[name])[:CLASSES_SHOWN]
    width = 0.8 / len(summaries)
    for i, (split, summary) in enumerate(summaries.items()):
        total = max(sum(summary.counts.values()), 1)
        shares = [100 * summary.counts.get(name, 0) / total for name in names]
        places = np.arange(len(names)) + (i - (len(summaries) - 1) / 2) * width
        label = f'{split}: {summary.images} images'
        if summary.counted in ('objects', 'segments'):
            label += f', {total:.0f} {summary.counted}'
        axes.bar(places, shares, width, color=COLOURS[i], label=label)
    shown = [short(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=60, ha='right', fontsize=TEXT)
    more = len(first.counts) - len(names)
    counted = first.counted.removeprefix('% of ')
    axes.set_ylabel(f'% of {counted}')
    axes.margins(y=0.25)  # for the legend
    axes.set_title('classes' + (f' (and {more} rarer ones)' if more else ''))
    axes.legend(fontsize=TEXT)


def _draw_image_sizes(axes: Axes, summaries: dict[str, Summary]) -> None:
    for i, (split, summary) in enumerate(summaries.items()):
        sizes = np.array(summary.image_sizes, float).reshape(-1, 2)
        marker = 'ox'[i % 2]
        axes.scatter(*sizes.T, color=COLOURS[i], marker=marker, alpha=0.6, label=split)
    axes.set_xlabel('width in pixels')
    axes.set_ylabel('height in pixels')
    axes.set_title('sizes of images')
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=TEXT)


def _draw_object_sizes(axes: Axes, summaries: dict[str, Summary]) -> None:
    for i, (split, summary) in enumerate(summaries.items()):
        sizes = np.array([size for size in summary.object_sizes if size > 0])
        if sizes.size:
            edges = np.geomspace(max(sizes.min(), 1), max(sizes.max(), 2), 30)
            weights = np.full(sizes.size, 100 / sizes.size)
            axes.hist(
                sizes,
                edges,
                weights=weights,
                histtype='step',
                linewidth=2,
                color=COLOURS[i],
                label=split,
            )
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel('root of the area in pixels')
    axes.set_ylabel('% of objects')
    axes.set_title('sizes of objects')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=TEXT)


def draw_sample(axes: Axes, sample: Sample, bits: int) -> None:
    """Draw an image with its boxes, polygons or map."""
    image, step = shrink(read_image(sample.path, bits)[..., ::-1])
    if sample.label_map is not None:
        image = tinted(image, sample.label_map[::step, ::step])
    axes.imshow(image)
    draw_objects(axes, sample.boxes, step)
