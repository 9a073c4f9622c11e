"""Plots of time and memory against tokens, and of accuracy against speed."""

import argparse
import re
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from .command import add_command
from .results import curve, exponent, models_of, read_csv

PANELS = {'median_ms': 'time (ms)', 'peak_mib': 'peak memory (MiB)'}


def plot(path: Path) -> Path:
    """Draw a comparison.

    Args:
        path (Path): CSV file written by op, backbone, model or tradeoff.

    Returns:
        Path: a PNG file beside it.

    Raises:
        BenchmarkError: if it is no such file.
    """
    rows = read_csv(path)
    figure = Figure(figsize=(12, 5), layout='constrained')
    first = rows[0]
    figure.suptitle(
        f'{first["mode"]}, {first["dtype"]}, batch {first["batch"]}, '
        f'{first["device"]}, {first["threads"]} threads, torch {first["torch"]}'
    )
    draw = _draw_tradeoff if 'top1' in first else _draw_growth
    draw(figure, rows)
    image = path.with_suffix('.png')
    figure.savefig(image, dpi=120)
    return image


def _draw_tradeoff(figure: Figure, rows: list[dict[str, str]]) -> None:
    """Published accuracy against images per second, a line for each family."""
    axis = figure.subplots()
    for marker, family in zip(
        cycle('o^sDvPX*'), dict.fromkeys(r['family'] for r in rows)
    ):
        points = sorted(
            (float(row['images_per_s']), float(row['top1']), row['model'])
            for row in rows
            if row['family'] == family and row['images_per_s'] != ''
        )
        if not points:
            continue
        xs, ys, models = zip(*points, strict=True)
        (line,) = axis.plot(xs, ys, marker=marker, label=family)
        for x, y, model in zip(xs, ys, models, strict=True):
            # The legend names the family.
            name = re.split('[_-]', re.sub(r'_(\d+xb\d+_)?in1k.*', '', model))[-1]
            axis.annotate(
                name,
                (x, y),
                xytext=(4, 5),
                textcoords='offset points',
                color=line.get_color(),
            )
    axis.set(xscale='log', xlabel='images/s at 224×224, measured')
    axis.set_ylabel('ImageNet-1K top-1 accuracy (%), published')
    axis.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axis.xaxis.set_minor_formatter(StrMethodFormatter('{x:g}'))
    axis.tick_params(axis='x', which='both', labelsize='small')
    axis.legend()
    axis.grid(which='both', alpha=0.3)


def _draw_growth(figure: Figure, rows: list[dict[str, str]]) -> None:
    """Time and memory against tokens, a line for each contestant."""
    first = rows[0]
    # An op's size is in tokens already.
    is_op = int(first['tokens']) == int(first['height']) * int(first['width'])
    axes = figure.subplots(1, len(PANELS))
    for axis, (column, label) in zip(axes, PANELS.items(), strict=True):
        for model in models_of(rows):
            points = curve(rows, model, column)
            if points:
                power = exponent(points)
                growth = '' if power is None else f': tokens^{power:.2f}'
                axis.plot(*zip(*points, strict=True), '.-', label=f'{model}{growth}')
        axis.set(xscale='log', yscale='log', ylabel=label)
        axis.set_xlabel('tokens' if is_op else 'tokens of stage 1 (pixels / 16)')
        if axis.lines:
            axis.legend()
        axis.grid(which='both', alpha=0.3)


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(subparsers, 'plot', run_plot, 'draw PNG files from CSV files')
    command.add_argument('files', nargs='+', metavar='CSV')


def run_plot(args: argparse.Namespace) -> None:
    for path in args.files:
        print(f'written to {plot(Path(path))}')
