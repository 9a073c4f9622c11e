"""Parts for training and validation, under the names that people give them."""

from __future__ import annotations

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


def split_of(name: str) -> str | None:
    """'train', 'val' or 'test', or None if a name is of none of them."""
    for split, names in SPLIT_NAMES.items():
        if name.strip().lower() in names:
            return split
    return None


def split_folders(parent: Path) -> dict[str, Path]:
    """The folders of splits in a folder, by 'train', 'val' and 'test'.

    Raises:
        DataError: if two of them mean the same split.
    """
    found: dict[str, Path] = {}
    for path in sorted(parent.iterdir()):
        split = split_of(path.name)
        if split is None or not path.is_dir():
            continue
        if split in found:
            raise DataError(
                f'{parent} has both {found[split].name} and {path.name}, which name '
                'the same part; leave one of them.'
            )
        found[split] = path
    return found


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
