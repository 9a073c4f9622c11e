"""Images of each class in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

from ..base import DataError
from ..files import IMAGE_SUFFIXES, is_hidden, list_files, need_folder
from ..listing import Listing, count_other_files, odd_part
from . import Layout
from .map_folders import IMAGE_FOLDERS, MAP_FOLDERS, first_image
from .split_folders import choose_parts, split_folders, split_of

DESCRIBED = 'with one subfolder per class'


def find_class_folders(root: Path) -> str | None:
    """Why a folder is taken for one of class folders, or None."""
    parts = split_folders(root)
    for path in parts.values():
        filled = next((name for name in _folders(path) if first_image(path / name)), '')
        if filled:
            return f'{path.name}/{filled}'
    if parts:
        return None
    names = [name for name in _folders(root) if first_image(root / name)]
    if any(_is_technical(name) for name in names):
        return None  # images and their maps, or images of a table, not two classes
    return ' and '.join(names[:2]) if len(names) > 1 else None


def read_class_folders(root: Path, splits: tuple[str, ...]) -> dict[str, Listing]:
    """Read ``{train,val}/<class>/…``, or ``<class>/…`` where there are no splits.

    The classes are the sorted names of the folders in ``train``, or in ``val`` where
    there is no ``train``.

    Raises:
        DataError: if a folder is missing or holds no class, or one that ``train`` does
            not have.
    """
    found = split_folders(root) or dict(all=root)
    if 'test' in found and not _folders(found['test']):
        del found['test']  # images of no known class
    if 'all' not in found and 'train' in splits:
        found.setdefault('train', root / 'train')
    parts = choose_parts(found, splits)
    first = found.get('all') or found.get('train') or parts['val'][1]
    known = _class_names(first)
    listings = {}
    for split, (part, folder) in parts.items():
        own = _class_names(folder)
        for name in own:
            if name not in known:
                raise DataError(
                    f'{folder} has the class {name!r}, but {first} does not; add '
                    'training images of it or remove the folder.'
                )
        pairs, odd = _read_folder(folder)
        odd += odd_part(part, pairs)
        listings[split] = Listing(folder, pairs, known, odd=odd)
    return listings


def _is_technical(name: str) -> bool:
    """Whether all words of a folder's name are those of splits, images and maps."""
    words = [word for word in re.split(r'[\W\d_]+', name.lower()) if word]
    known = (*IMAGE_FOLDERS, *MAP_FOLDERS)
    return bool(words) and all(split_of(word) or word in known for word in words)


def _folders(folder: Path) -> list[str]:
    """The sorted names of the folders in ``folder``, without hidden ones."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not is_hidden(name))


def _class_names(folder: Path) -> tuple[str, ...]:
    need_folder(folder, DESCRIBED)
    names = _folders(folder)
    if not names:
        raise DataError(
            f'{folder} holds no folders; it must have one for each class, with the '
            'images of that class.'
        )
    return tuple(names)


def _read_folder(
    folder: Path,
) -> tuple[list[tuple[Path, str]], list[tuple[str, str, int]]]:
    """The images of one split and their classes, and what is odd."""
    names = list_files(folder, IMAGE_SUFFIXES)
    pairs = [(folder / name, name.split('/')[0]) for name in names if '/' in name]
    if not pairs:
        raise DataError(f'{folder} has no images ({", ".join(IMAGE_SUFFIXES)}).')
    odd = []
    loose = [name for name in names if '/' not in name]
    if loose:
        reason = f'images lie in {folder} beside the class folders and are left out'
        odd.append((reason, loose[0], len(loose)))
    return pairs, odd + count_other_files(folder)


CLASS_FOLDERS = Layout(
    name='class folders',
    described='{train,val}/<class>/… with images, or <class>/… for --val-fraction',
    find=find_class_folders,
    read=read_class_folders,
)
