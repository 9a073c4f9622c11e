"""Files and folders, as all tasks find and check them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .base import DataError

# Files with other suffixes are not taken for images. Case does not matter.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def need_folder(folder: Path, described: str = '') -> None:
    """Raise DataError if a folder is missing, and tell what is there instead."""
    if not folder.parent.is_dir():
        need_folder(folder.parent)
    if folder.is_dir():
        return
    found = ', '.join(sorted(path.name for path in folder.parent.iterdir())[:10])
    raise DataError(
        f'{folder.parent} must hold a folder {f"{folder.name} {described}".strip()}; '
        f'found there: {found or "nothing"}.'
    )


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Files below ``folder`` that have one of some suffixes.

    Args:
        folder (Path): where to look, subfolders and links included, hidden ones not.
        suffixes (tuple[str]): in lower case; those of the files may be in any.

    Returns:
        list[str]: sorted paths relative to ``folder``, with forward slashes.
    """
    names = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        start = Path(os.path.relpath(parent, folder))
        names += [
            (start / name).as_posix()
            for name in files
            if name.lower().endswith(suffixes) and not name.startswith('.')
        ]
    return sorted(names)


def check_files(check: Callable, items: list, what: str) -> list:
    """Call ``check`` on all items, in threads, and tell how far it is.

    Args:
        check (Callable): takes one item; may raise DataError.
        items (list): what to check.
        what (str): what the items are, to be printed.

    Returns:
        list: what ``check`` returned, in the order of ``items``.

    Raises:
        DataError: that of the first item, in their order, that has one.
    """
    results = []
    told = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), 500):
            results += pool.map(check, items[start : start + 500])
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f'--data: checked {len(results)} of {len(items)} {what}')
    return results
