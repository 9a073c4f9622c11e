"""Files that name classes, some with the colours of these in maps."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ..base import DataError
from ..listing import check_names
from ..maps import IGNORED, MapValues

NAMES = 'classes.txt'
TABLES = ('labelmap.txt', 'class_dict.csv')  # of CVAT; of CamVid and Kaggle

# Names of colours, in lower case, that stand for pixels of no class
IGNORED_NAMES = ('void', 'ignore', 'ignored', 'unlabeled', 'unlabelled')

COLUMNS = dict(
    name=('name', 'class', 'label', 'class_name', 'class name', 'class_names'),
    r=('r', 'red'),
    g=('g', 'green'),
    b=('b', 'blue'),
)
_WITH_COLOUR = re.compile(r'(.*\S)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)')
_OF_CVAT = re.compile(r'(.*?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?')

Rows = list[tuple[int, str, tuple[int, ...]]]  # line, name, colour


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8, without blank ones at its end.

    Raises:
        DataError: if it cannot be read as that.
    """
    try:
        return path.read_text(encoding='utf-8-sig').rstrip().splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f'{path} cannot be read as UTF-8 text: {error}.') from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Read one class name per line.

    Raises:
        DataError: if the file is missing, is no text, or names fewer than two
            classes, one of them twice, or none on a line before the last.
    """
    if not path.is_file():
        raise DataError(
            f'{path} is missing; write one class name per line into it, in the order '
            'of the class indices.'
        )
    names = [line.strip() for line in read_lines(path)]
    for i, name in enumerate(names):
        if not name:
            raise DataError(
                f'{path}: line {i + 1} is blank, but stands for the class with index '
                f'{i}; name it or take the line out.'
            )
        if name in names[:i]:
            raise DataError(
                f'{path} names {name!r} twice, on lines {names.index(name) + 1} and '
                f'{i + 1}; each class needs a name of its own.'
            )
    _check_count(path, len(names))
    return tuple(names)


def find_colours(root: Path) -> Path | None:
    """The file in a folder that gives each class a colour, if there is one."""
    for name in TABLES:
        if path := _find(root, name):
            return path
    path = _find(root, NAMES)
    return path if path and _has_colours(path) else None


def find_names(root: Path) -> Path | None:
    """The file in a folder that names classes without colours, if there is one."""
    path = _find(root, NAMES)
    return path if path and not _has_colours(path) else None


def _find(root: Path, name: str) -> Path | None:
    """The file of a name in a folder; case does not matter."""
    found = (path for path in sorted(root.iterdir()) if path.name.lower() == name)
    return next((path for path in found if path.is_file()), None)


def _has_colours(path: Path) -> bool:
    """Whether a file of names has a colour behind the first of them."""
    lines = read_lines(path)
    return bool(lines and _WITH_COLOUR.fullmatch(lines[0].strip()))


def read_colours(path: Path) -> tuple[tuple[str, ...], MapValues, list[str]]:
    """Read which colour stands for which class.

    Args:
        path (Path): ``labelmap.txt`` of CVAT with lines ``name:r,g,b:parts:actions``,
            ``class_dict.csv`` with the columns name, r, g and b, or ``classes.txt``
            with lines ``name r g b``.

    Returns:
        tuple: the classes in the order of the file, what the colours mean, and those
        names in the file that are of no class (:data:`IGNORED_NAMES`).

    Raises:
        DataError: names the first line that is not as it should be.
    """
    if path.name.lower() == 'labelmap.txt':
        rows = _read_cvat(path)
    elif path.suffix.lower() == '.csv':
        rows = _read_csv(path)
    else:
        rows = _read_text(path)
    colours: dict[tuple[int, ...], int] = {}
    lines: dict[tuple[int, ...], int] = {}
    classes, ignored = [], []
    for line, name, colour in rows:
        if not name:
            raise DataError(f'{path}: line {line} names no class; name it.')
        if max(colour) > 255:
            raise DataError(
                f'{path}: line {line} has the colour {colour}; give values of 0 to 255.'
            )
        if colour in colours:
            raise DataError(
                f'{path} has the colour {colour} twice, on lines {lines[colour]} and '
                f'{line}; each class needs a colour of its own.'
            )
        lines[colour] = line
        of_no_class = name.lower() in IGNORED_NAMES
        (ignored if of_no_class else classes).append(name)
        colours[colour] = IGNORED if of_no_class else len(classes) - 1
    _check_count(path, len(classes))
    check_names(tuple(classes), path)
    values = MapValues(range(len(classes)), named_in=path.name, colours=colours)
    return tuple(classes), values, ignored


def _read_cvat(path: Path) -> Rows:
    rows = []
    for i, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith('#'):
            continue
        parts = _OF_CVAT.fullmatch(line)
        if not parts:
            raise DataError(
                f'{path}: line {i} is {line!r}, where name:r,g,b:parts:actions belongs.'
            )
        colour = tuple(int(value) for value in parts.groups()[1:])
        rows.append((i, parts[1].strip(), colour))
    return rows


def _read_csv(path: Path) -> Rows:
    lines = read_lines(path)
    mark = max(',;\t', key=''.join(lines[:1]).count)
    reader = csv.reader(lines, delimiter=mark, skipinitialspace=True)
    header = [name.strip().lower() for name in next(reader, [])]
    places = {}
    for column, names in COLUMNS.items():
        found = [i for i, name in enumerate(header) if name in names]
        if not found:
            raise DataError(
                f'{path} has the columns {", ".join(header) or "(none)"}; it needs '
                'name, r, g and b, named so on its first line.'
            )
        places[column] = found[0]
    rows = []
    for row in reader:
        if not any(value.strip() for value in row):
            continue
        cells = [row[i].strip() if i < len(row) else '' for i in places.values()]
        if not all(value.isdigit() for value in cells[1:]):
            raise DataError(
                f'{path}: line {reader.line_num} has the colour {cells[1:]}; give '
                'three whole numbers of 0 to 255.'
            )
        rows.append((reader.line_num, cells[0], tuple(int(v) for v in cells[1:])))
    return rows


def _read_text(path: Path) -> Rows:
    rows = []
    for i, line in enumerate(read_lines(path), 1):
        parts = _WITH_COLOUR.fullmatch(line.strip())
        if not parts:
            raise DataError(
                f'{path}: line {i} is {line!r}, but the first has a colour behind the '
                'name; write name r g b on each line, or the names alone.'
            )
        colour = tuple(int(value) for value in parts.groups()[1:])
        rows.append((i, parts[1], colour))
    return rows


def _check_count(path: Path, count: int) -> None:
    """Refuse what no segmentor can tell apart."""
    if not 2 <= count <= IGNORED:
        raise DataError(
            f'{path} names {count} classes; a segmentor tells 2 to {IGNORED} '
            "classes apart (what is no object is a class too, such as 'background')."
        )
