"""Plots of time and memory against the number of tokens."""

from pathlib import Path

from matplotlib.figure import Figure

from .results import curve, exponent, models_of, read_csv

PANELS = {'median_ms': 'time (ms)', 'peak_mib': 'peak memory (MiB)'}


def plot(path: Path) -> Path:
    """Draw a comparison.

    Args:
        path (Path): CSV file written by op, backbone or model.

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
    image = path.with_suffix('.png')
    figure.savefig(image, dpi=120)
    return image
