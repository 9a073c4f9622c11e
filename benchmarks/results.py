"""Figures as CSV files, tables and exponents."""

import csv
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from mmravlt.analysis.flops import markdown_table

from .errors import BenchmarkError
from .measure import MIB, Condition, Figures, device_name, paired_ratio

FOLDER = Path(__file__).parent / 'results'
COLUMNS = [
    *('model', 'height', 'width', 'tokens', 'mode', 'dtype', 'batch'),
    *('median_ms', 'min_ms', 'max_ms', 'ratio', 'peak_mib', 'peak_ratio'),
    *('resident_mib', 'runs', 'device', 'threads', 'torch'),
]
Row = dict[str, object]


def rows_of_size(
    figures: dict[str, Figures],
    size: tuple[int, int],
    tokens: int,
    condition: Condition,
) -> list[Row]:
    """A row for each contestant at one size, as :data:`COLUMNS` names them.

    Ratios are to the first contestant; figures that there are not stay empty.

    Args:
        figures (dict[str, Figures]): of each contestant.
        size (tuple[int, int]): height and width, in pixels or, for an op, tokens.
        tokens (int): tokens of the first stage.
        condition (Condition): what the figures were measured under.
    """
    first = next(iter(figures.values()))
    rows = []
    for name, measured in figures.items():
        row = dict.fromkeys(COLUMNS, '')
        row.update(model=name, height=size[0], width=size[1], tokens=tokens)
        row.update(mode=condition.mode, dtype=condition.dtype, batch=condition.batch)
        row.update(runs=len(measured.times), device=device_name(condition.device))
        row.update(threads=torch.get_num_threads(), torch=torch.__version__)
        if measured.times:
            row['median_ms'] = _round(statistics.median(measured.times))
            row['min_ms'] = _round(min(measured.times))
            row['max_ms'] = _round(max(measured.times))
            if first.times:
                row['ratio'] = _round(paired_ratio(first.times, measured.times))
        if measured.peak is not None:
            row['peak_mib'] = _round(measured.peak / MIB)
            if first.peak:
                row['peak_ratio'] = _round(measured.peak / first.peak)
        if measured.resident is not None:
            row['resident_mib'] = _round(measured.resident / MIB)
        rows.append(row)
    return rows


def _round(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f'{value:.4g}')


def file_of(out: str | None, *condition: str) -> Path:
    """Where a CSV file goes.

    Args:
        out (str | None): a file that ends in .csv, or a folder, in which the file
            is named by its condition; ``benchmarks/results`` if None.
        *condition (str): the parts of that name; empty ones are left out.
    """
    if out and out.endswith('.csv'):
        return Path(out)
    name = '_'.join(part for part in condition if part)
    return (Path(out) if out else FOLDER) / f'{name}.csv'


def name_of_sizes(sizes: list[tuple[int, int]]) -> str:
    """'800x1280', or 'sweep' for several sizes."""
    return 'x'.join(map(str, sizes[0])) if len(sizes) == 1 else 'sweep'


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write rows under the names of their keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what :func:`write_csv` wrote of a comparison.

    Raises:
        BenchmarkError: if the file is not there or is of another kind.
    """
    if not path.is_file():
        raise BenchmarkError(f'there is no file {path}.')
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    if not rows or set(COLUMNS) - set(rows[0]):
        raise BenchmarkError(
            f'{path} is not a comparison written by op, backbone, model or tradeoff; '
            f'it lacks columns {", ".join(sorted(set(COLUMNS) - set(*rows[:1])))}.'
        )
    return rows


def curve(rows: list[Row], model: str, column: str) -> list[tuple[float, float]]:
    """(tokens, value) of a model, by growing tokens, without empty figures."""
    return sorted(
        (float(row['tokens']), float(row[column]))
        for row in rows
        if row['model'] == model and row[column] != '' and float(row[column]) > 0
    )


def exponent(points: list[tuple[float, float]]) -> float | None:
    """p of the power law tokens^p, by least squares in log-log.

    Fitted over the largest half of the sizes, where fixed costs weigh least.

    Args:
        points (list[tuple[float, float]]): (tokens, value) by growing tokens.

    Returns:
        float | None: None with fewer than two different sizes.
    """
    largest = points[-max(2, math.ceil(len(points) / 2)) :]
    if len({tokens for tokens, _ in largest}) < 2:
        return None
    logs = [(math.log(tokens), math.log(value)) for tokens, value in largest]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def models_of(rows: list[Row]) -> list[str]:
    """Names of the contestants in the order of the rows."""
    return list(dict.fromkeys(str(row['model']) for row in rows))


def comparison_table(rows: list[Row]) -> str:
    """A Markdown table with a line for each contestant at each size."""
    headings = ['model', 'size', 'median ms', 'min', 'max', 'ratio']
    keys = ['median_ms', 'min_ms', 'max_ms', 'ratio', 'peak_mib', 'peak_ratio']
    headings += ['peak MiB', 'peak ratio']
    if any(row['resident_mib'] != '' for row in rows):
        headings, keys = [*headings, 'resident MiB'], [*keys, 'resident_mib']
    lines = [
        [str(row['model']), f'{row["height"]}x{row["width"]}']
        + ['–' if row[key] == '' else f'{row[key]:g}' for key in keys]
        for row in rows
    ]
    return markdown_table(headings, lines)


def exponents_table(rows: list[Row]) -> str | None:
    """A Markdown table of how figures grow; None with a single size."""
    if len({row['tokens'] for row in rows}) < 2:
        return None
    headings = ['model', 'time ~ tokens^', 'peak memory ~ tokens^']
    columns = ('median_ms', 'peak_mib')
    return markdown_table(
        headings,
        [
            [model, *(_power(exponent(curve(rows, model, c))) for c in columns)]
            for model in models_of(rows)
        ],
    )


def _power(value: float | None) -> str:
    return '–' if value is None else f'{value:.2f}'


def report(path: Path, rows: list[Row], say: Callable[[str], None] = print) -> None:
    """Print the tables of a comparison and where its CSV file is."""
    say(f'\n{comparison_table(rows)}\n')
    if exponents := exponents_table(rows):
        say(f'Growth over the largest half of the sizes:\n\n{exponents}\n')
    say(f'written to {path}')
