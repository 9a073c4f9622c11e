"""Tables (CSV, TSV) that give each image its class."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..base import DataError
from ..files import IMAGE_SUFFIXES, list_files
from ..listing import Listing, odd_part
from . import Layout
from .class_folders import find_class_folders
from .split_folders import SPLIT_NAMES, by_split, choose_parts, split_of

SUFFIXES = ('.csv', '.tsv')
# What columns are called, in lower case and with _ for blanks; of several, the first
# one counts.
IMAGE_COLUMNS = (
    *('image', 'image_path', 'filename', 'file_name', 'file', 'path', 'filepath'),
    *('filepaths', 'image_name', 'image_id', 'imageid', 'img', 'id'),
)
LABEL_COLUMNS = (
    *('label', 'labels', 'class', 'class_name', 'category', 'target', 'class_id'),
    'classid',
)
SPLIT_COLUMNS = ('split', 'set', 'data_set', 'dataset', 'subset')


@dataclass(frozen=True)
class Row:
    """One line of a table: its number, an image, its class, and its split if any."""

    line: int
    image: str
    label: str
    split: str | None


def find_class_table(root: Path) -> str | None:
    """Why a folder is taken for one of a table, or None."""
    if find_class_folders(root):
        return None  # a table beside these may hold anything
    tables = _tables(root)
    for path in tables:
        if _columns(path):
            return path.name
    if tables:
        raise DataError(
            f'{tables[0]} has the columns {", ".join(next(_read(tables[0]))[1])}; of '
            f'images it needs one out of {", ".join(IMAGE_COLUMNS)}, and of classes '
            f'one out of {", ".join(LABEL_COLUMNS)}.'
        )
    return None


def read_class_table(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read ``train.csv`` and ``val.csv``, or one table with or without splits.

    The classes are the sorted labels of ``train``, or of all there is.

    Raises:
        DataError: names the file and the line that are not as they should be.
    """
    tables = [path for path in _tables(root) if _columns(path)]
    found = {k: (path, _read_rows(path)) for k, path in by_split(tables).items()}
    if not found:
        if len(tables) > 1:
            raise DataError(
                f'{root} has both {tables[0].name} and {tables[1].name}, which both '
                'list images and classes; leave one, or name them train and val.'
            )
        found = _parts_of(tables[0])
    if 'all' not in found and 'train' not in found and 'train' in splits:
        raise DataError(
            f'{root} lists no images for training ({", ".join(SPLIT_NAMES["train"])}); '
            f'found: {", ".join(found)}.'
        )
    parts = choose_parts(found, splits)
    known_in = found.get('all') or found.get('train') or parts['val'][1]
    labels = {row.label for row in known_in[1]}
    numbers = all(label.isdecimal() for label in labels)
    # 1 and 01 are two classes, which need an order too
    order = (lambda label: (int(label), label)) if numbers else str
    classes = tuple(sorted(labels, key=order))
    disk = Disk(root)
    listings = {}
    for split, (part, (path, rows)) in parts.items():
        for row in rows:
            if row.label not in labels:
                raise DataError(
                    f'{path} has the class {row.label!r} on line {row.line}, but '
                    f'training has no image of it; add some or take the line out.'
                )
        listing = _read_listing(path, rows, classes, disk, part)
        listing.odd += odd_part(part, listing.pairs)
        listings[split] = listing
    listed = set()
    for part, (_, rows) in found.items():
        folder = disk.folder_of([row.image for row in rows], part)
        listed.update(disk.find(row.image, folder) for row in rows)
    others = [name for name in disk.names if name not in listed]
    if others:
        reason = f'images in {root} are in no table and are left out'
        next(iter(listings.values())).odd.append((reason, others[0], len(others)))
    return listings


def _tables(root: Path) -> list[Path]:
    """The files in a folder that are tables by their suffix."""
    return [p for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES]


def _columns(path: Path) -> dict[str, int] | None:
    """The places of the columns that are needed, or None if some are missing."""
    return _find_columns(next(_read(path))[1])


def _find_columns(header: list[str]) -> dict[str, int] | None:
    names = [re.sub(r'[\s-]+', '_', name.strip().lower()) for name in header]
    kinds = dict(image=IMAGE_COLUMNS, label=LABEL_COLUMNS, split=SPLIT_COLUMNS)
    places = {
        kind: names.index(next(name for name in known if name in names))
        for kind, known in kinds.items()
        if any(name in names for name in known)
    }
    return places if {'image', 'label'} <= places.keys() else None


def _read(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line; the first is the header."""
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            header = file.readline()
            file.seek(0)
            marks = '\t' if path.suffix.lower() == '.tsv' else ',;\t'
            mark = max(marks, key=header.count)
            reader = csv.reader(file, delimiter=mark, skipinitialspace=True)
            yield reader.line_num, next(reader, [])
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(
            f'{path} cannot be read as a table in UTF-8: {error}.'
        ) from None


def _read_rows(path: Path) -> list[Row]:
    """All lines of a table but its header."""
    lines = _read(path)
    places = _find_columns(next(lines)[1])
    rows = []
    for line, cells in lines:
        values = {k: cells[i] if i < len(cells) else '' for k, i in places.items()}
        if not values['label'] and split_of(values.get('split', '')) == 'test':
            continue  # its classes are not given
        for kind in ('image', 'label'):
            if not values[kind]:
                raise DataError(
                    f'{path}: line {line} has no {kind}; fill it in or take the line '
                    'out.'
                )
        image = values['image'].replace('\\', '/')
        rows.append(Row(line, image, values['label'], values.get('split')))
    if not rows:
        raise DataError(f'{path} lists no images.')
    return rows


def _parts_of(path: Path) -> dict[str, tuple[Path, list[Row]]]:
    """The lines of a table by the split that they name, or under 'all'."""
    rows = _read_rows(path)
    if rows[0].split is None:
        return dict(all=(path, rows))
    found: dict[str, tuple[Path, list[Row]]] = {}
    for row in rows:
        split = split_of(row.split)
        if split is None:
            known = ', '.join(name for names in SPLIT_NAMES.values() for name in names)
            raise DataError(
                f'{path}: line {row.line} has the split {row.split!r}; name one of '
                f'{known}.'
            )
        found.setdefault(split, (path, []))[1].append(row)
    return found


class Disk:
    """The images below a folder, to be found by what tables call them.

    Args:
        root (Path): the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = list_files(root, IMAGE_SUFFIXES)
        self._known = set(self.names)
        self._by_stem: dict[str, list[str]] = {}
        folders = {''}
        for name in self.names:
            self._by_stem.setdefault(name[: name.rindex('.')], []).append(name)
            folders.update(str(parent) for parent in PurePosixPath(name).parents)
        self._folders = sorted(folders - {'.'})

    def find(self, name: str, folder: str) -> str | None:
        """The image of a name, with or without suffix, from a folder below root."""
        if PurePosixPath(name).is_relative_to(self.root):
            folder, name = '', str(PurePosixPath(name).relative_to(self.root))
        path = f'{folder}/{name}'.lstrip('/') if folder else name
        path = path.removeprefix('./')
        if path in self._known:
            return path
        found = self._by_stem.get(path, [])
        return found[0] if len(found) == 1 else None

    def folder_of(self, names: list[str], part: str) -> str:
        """The folder from which most of the names start; of equals, the likeliest."""
        sample = names[:200]

        def rank(folder: str) -> tuple:
            hits = sum(self.find(name, folder) is not None for name in sample)
            words = re.split(r'[\W\d_]+', folder)
            named = any(split_of(word) == part for word in words)
            return hits, named, -folder.count('/'), not folder

        return max(self._folders, key=rank)


def _read_listing(
    path: Path, rows: list[Row], classes: tuple[str, ...], disk: Disk, part: str
) -> Listing:
    """Find the images of a split on disk."""
    folder = disk.folder_of([row.image for row in rows], part)
    used: dict[str, Row] = {}
    missing, twice = [], []
    for row in rows:
        name = disk.find(row.image, folder)
        if name is None:
            missing.append(row)
        elif name not in used:
            used[name] = row
        elif used[name].label == row.label:
            twice.append(row)
        else:
            first = used[name]
            raise DataError(
                f'{path} gives {row.image!r} the class {first.label!r} on line '
                f'{first.line} and {row.label!r} on line {row.line}; leave one of them.'
            )
    if missing:
        raise DataError(
            f'{path} lists {len(rows)} images; {len(missing)} of them, such as '
            f'{missing[0].image!r} on line {missing[0].line}, are not in '
            f'{disk.root / folder}; add them or take the lines out.'
        )
    odd = []
    if twice:
        reason = f'lines of {path} repeat an image and its class, and count once'
        example = f'line {twice[0].line}, {twice[0].image}'
        odd.append((reason, example, len(twice)))
    pairs = [(disk.root / name, row.label) for name, row in used.items()]
    return Listing(path, pairs, classes, odd=odd)


CLASS_TABLE = Layout(
    name='a table of classes',
    described='train.csv and val.csv, or one CSV or TSV, with a column for the image '
    f'({", ".join(IMAGE_COLUMNS[:5])}, …) and one for the class '
    f'({", ".join(LABEL_COLUMNS[:4])}, …), and perhaps one called split',
    find=find_class_table,
    read=read_class_table,
)
