"""A picture of what is in prepared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from .images import read_image
from .maps import IGNORED
from .summary import Sample, Summary

# Okabe and Ito's colours, which people with colour blindness can tell apart
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442')
CLASSES_SHOWN = 25
SIDE_SHOWN = 640  # pixels of a sample's longer side


def colour(index: int) -> tuple[float, float, float]:
    """Of a class, RGB from 0 to 1: seven colours, then their tints and shades."""
    base = np.array(to_rgb(COLOURS[index % len(COLOURS)]))
    tint, shade = 0.45 + 0.55 * base, 0.5 * base
    return tuple((base, tint, shade)[index // len(COLOURS) % 3].tolist())


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
    figure = Figure(figsize=(14, 4.2 + 2.9 * rows), dpi=90, layout='constrained')
    figure.suptitle(plain(title), fontsize=13)
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
            shown = plain(sample.label or sample.path.name)
            axes.set_title(f'{split}: {shown}', fontsize=9)
    samples = [sample for x in summaries.values() for sample in x.samples]
    used = sorted({i for sample in samples for i in _classes_of(sample)})
    if used:
        handles = [Patch(color=colour(i), label=plain(classes[i])) for i in used[:14]]
        bottom.legend(handles=handles, loc='outside lower center', ncols=7, fontsize=9)
    figure.savefig(path, format='png')


def plain(name: str) -> str:
    """A name as Matplotlib has to get it to take none of it for a formula."""
    return name.replace('$', r'\$')


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
    shown = [plain(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=60, ha='right', fontsize=9)
    more = len(first.counts) - len(names)
    counted = first.counted.removeprefix('% of ')
    axes.set_ylabel(f'% of {counted}')
    axes.margins(y=0.25)  # for the legend
    axes.set_title('classes' + (f' (and {more} rarer ones)' if more else ''))
    axes.legend(fontsize=9)


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
    axes.legend(fontsize=9)


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
    axes.legend(fontsize=9)


def draw_sample(axes: Axes, sample: Sample, bits: int) -> None:
    """Draw an image with its boxes, polygons or map."""
    image = read_image(sample.path, bits)[..., ::-1]
    step = max(max(image.shape[:2]) // SIDE_SHOWN, 1)
    image = image[::step, ::step]
    if sample.label_map is not None:
        label_map = sample.label_map[::step, ::step]
        table = np.array([colour(i) for i in range(IGNORED)])
        known = label_map != IGNORED
        tint = table[np.where(known, label_map, 0) % IGNORED] * 255
        mixed = 0.45 * image + 0.55 * tint
        image = np.where(known[..., None], mixed, image).astype(np.uint8)
    axes.imshow(image)
    for index, box, polygons in sample.boxes:
        x, y, width, height = (value / step for value in box)
        line = dict(edgecolor=colour(index), linewidth=1.2)
        for polygon in polygons:
            points = np.array(polygon, float).reshape(-1, 2) / step
            fill = (*colour(index), 0.35)
            axes.add_patch(Polygon(points, facecolor=fill, **line))
        if not polygons:
            axes.add_patch(Rectangle((x, y), width, height, fill=False, **line))
