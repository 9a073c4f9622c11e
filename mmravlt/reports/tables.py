"""Tables with a row per class or evaluation, as files and for a terminal."""

from __future__ import annotations

import csv
import io
import math

SHOWN = 20  # rows in a terminal


def as_csv(rows: list[dict]) -> bytes:
    """Rows, which need not have the same columns, as the content of a CSV file."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_text(rows: list[dict], score: str, digits: int, source: str) -> str:
    """Rows for people, those with the lowest score first.

    Args:
        rows (list[dict]): with the same columns; a name is in the first.
        score (str): a column; rows without it come last.
        digits (int): after the point.
        source (str): where all rows are, where these are too many.

    Returns:
        str: aligned lines.
    """
    if not rows:
        return ''
    columns = list(rows[0])
    ordered = sorted(
        rows, key=lambda row: math.inf if row[score] is None else row[score]
    )
    cells = [
        columns,
        *([_cell(row[c], digits) for c in columns] for row in ordered[:SHOWN]),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *numbers in cells:
        parts = [name.ljust(widths[0])]
        parts += [n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append('  '.join(parts).rstrip())
    if len(rows) > SHOWN:
        lines.append(f'and {len(rows) - SHOWN} more in {source}')
    return '\n'.join(lines)


def number(value: float, digits: int = 4) -> float | None:
    """A number for a cell; None, which leaves it empty, where it is NaN."""
    return None if math.isnan(value) else round(float(value), digits)


def _cell(value, digits: int) -> str:
    if isinstance(value, str):
        return value if len(value) <= 32 else value[:31] + '…'
    if value is None:
        return '-'
    return f'{value:.{digits}f}' if isinstance(value, float) else str(value)
