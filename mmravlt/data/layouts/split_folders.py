"""Parts for training and validation, under the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from ..base import DataError

Found = TypeVar('Found')

# In lower case; case does not matter.
SPLIT_NAMES = dict(
    train=('train', 'training'),
    val=('val', 'valid', 'validation'),
    test=('test', 'testing'),
)


_YEAR = re.compile(r'[ _-]?20\d\d$')  # as in COCO's train2017


def split_of(name: str) -> str | None:
    """'train', 'val' or 'test', or None if a name is of none of them."""
    plain = _YEAR.sub('', name.strip().lower())
    for split, names in SPLIT_NAMES.items():
        if plain in names:
            return split
    return None


def by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Those of some paths that are named like splits, by 'train', 'val' and 'test'.

    Raises:
        DataError: if two of them mean the same split.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        split = split_of(path.name if path.is_dir() else path.stem)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f'{path.parent} has both {found[split].name} and {path.name}, which '
                'name the same part; leave one of them.'
            )
        found[split] = path
    return found


def split_folders(parent: Path) -> dict[str, Path]:
    """The folders of splits in a folder, by 'train', 'val' and 'test'.

    Raises:
        DataError: if two of them mean the same split.
    """
    return by_split(path for path in parent.iterdir() if path.is_dir())


def choose_parts(
    found: dict[str, Found], splits: tuple[str, ...]
) -> dict[str, tuple[str, Found]]:
    """Which parts of the data serve as which splits.

    Args:
        found (dict): the parts, under 'train', 'val' and 'test', or under 'all'.
        splits (tuple[str]): what is needed, of 'train' and 'val'.

    Returns:
        dict: for each split that is needed, the name of its part in ``found``, and the
        part. Where nothing is for validation, the only key is 'all', and all is to be
        split in two.
    """
    if 'all' in found:
        return dict(all=('all', found['all']))
    val = next((part for part in ('val', 'test') if part in found), None)
    if val is None:
        return dict(all=('train', found['train']))
    names = dict(train='train', val=val)
    return {split: (names[split], found[names[split]]) for split in splits}
