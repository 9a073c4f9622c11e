"""Lists of images, each with its answer, and how one list becomes two."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .base import DataError, DataOptions
from .files import IMAGE_SUFFIXES, list_files
from .findings import Findings
from .maps import MapValues
from .splits import choose_validation, note_choice, note_unused

# Files beside images that nobody takes for images
NOTES_SUFFIXES = (
    *('.txt', '.md', '.csv', '.tsv', '.json', '.jsonl', '.xml', '.yaml', '.yml'),
    *('.html', '.pdf', '.db', '.ini', '.py', '.ipynb', '.zip'),
)


@dataclass
class Listing:
    """Images of one split, each with its map or its class.

    Attributes:
        source (Path): the file or folder that says which image has which answer.
        pairs (list[tuple]): paths of images, each with the path of its map, or with the
            name of its class.
        classes (tuple[str]): names in the order of their indices.
        values (MapValues | None): what the values in maps mean.
        odd (list[tuple[str, str, int]]): a reason, an example and a count each, as
            :class:`Findings` has them.
    """

    source: Path
    pairs: list[tuple[Path, Any]]
    classes: tuple[str, ...]
    values: MapValues | None = None
    odd: list[tuple[str, str, int]] = field(default_factory=list)


def split_listings(
    listings: dict[str, Listing],
    root: Path,
    options: DataOptions,
    folder: Path,
    by_class: bool = False,
) -> tuple[dict[str, Listing], list[str]]:
    """Choose a part for validation where data has none.

    Args:
        listings (dict): by 'train' and 'val', or by 'all'.
        root (Path): the folder of the data.
        options (DataOptions): with ``val_fraction`` and ``seed``.
        folder (Path): where a text file is written that lists the images chosen.
        by_class (bool): whether the fraction holds for the images of each class; one
            that is the only image of its class is for training.

    Returns:
        tuple: the listings by 'train' and 'val', and what to tell the user.

    Raises:
        DataError: if there is no validation part and none can be chosen.
    """
    if 'all' not in listings:
        return listings, note_unused(root, options)
    whole = listings['all']
    groups: dict[Any, list[int]] = {}
    for i, (_, answer) in enumerate(whole.pairs):
        groups.setdefault(answer if by_class else None, []).append(i)
    several = [group for group in groups.values() if len(group) > 1 or not by_class]
    if not several:
        raise DataError(
            f'{root} has no class with more than one image, so none of them can be '
            'for validation; add more.'
        )
    chosen = {
        group[i]
        for group in several
        for i in choose_validation(len(group), root, options)
    }
    parts: dict[str, list] = dict(train=[], val=[])
    for i, pair in enumerate(whole.pairs):
        parts['val' if i in chosen else 'train'].append(pair)
    chosen_paths = [str(path) for path, _ in parts['val']]
    note = note_choice(chosen_paths, len(whole.pairs), root, options, folder)
    first, second = (replace(whole, pairs=parts[split]) for split in ('train', 'val'))
    return dict(train=first, val=replace(second, odd=[])), [note]


def count_files_used_twice(listings: dict[str, Listing], findings: Findings) -> None:
    """Count images that are a file of training too, or one that is listed before.

    A file may have several names by links, or be listed under the same one again.
    """
    seen: dict[tuple[int, int], tuple[str, Path]] = {}
    for split in sorted(listings):  # train before val
        for path, _ in listings[split].pairs:
            status = path.stat()
            key = status.st_dev, status.st_ino
            where, first = seen.setdefault(key, (split, path))
            if where != split:
                reason = f'images are the same files as images of {where}'
            elif first is not path:
                reason = 'images are the same files as images listed before'
            else:
                continue
            findings.add(split, reason, f'{path} is {first}')


def odd_part(part: str, pairs: list[tuple[Path, Any]]) -> list[tuple[str, str, int]]:
    """What to say of the part that serves for validation, if its name is another."""
    reason = 'images are of the test part, as there is none for validation'
    return [(reason, str(pairs[0][0]), len(pairs))] if part == 'test' else []


def count_other_files(folder: Path) -> list[tuple[str, str, int]]:
    """What to say of files that may be images in formats that are not read, if any."""
    known = IMAGE_SUFFIXES + NOTES_SUFFIXES
    names = list_files(folder, ('',))
    others = [name for name in names if not name.lower().endswith(known)]
    reason = f'files in {folder} are no images by their suffix and are left out'
    return [(reason, others[0], len(others))] if others else []


def check_names(classes: tuple[str, ...], source: Path) -> None:
    """Raise DataError if a class has no name, or that of another."""
    for i, name in enumerate(classes):
        if not name:
            raise DataError(f'{source} has no name for the class with index {i}.')
        if name in classes[:i]:
            raise DataError(
                f'{source} names {name!r} twice, as the classes with the indices '
                f'{classes.index(name)} and {i}; each class needs a name of its own.'
            )
