"""Files and folders, as all tasks find and check them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .base import DataError

# Files with other suffixes are not taken for images. Case does not matter.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')

# Folders that systems (macOS, Synology) put among those of people
OF_SYSTEMS = ('__MACOSX', '@eaDir')


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
    """Files below ``folder``; hidden files and folders are left out.

    Args:
        folder (Path): where to look, subfolders and links included; a folder that is
            reached twice counts once.
        suffixes (tuple[str]): in lower case; those of the files may be in any.

    Returns:
        list[str]: sorted paths relative to ``folder``, with forward slashes.
    """
    return sorted(name for name in _walk(folder) if name.lower().endswith(suffixes))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not for people."""
    return name.startswith('.') or name in OF_SYSTEMS


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """What fits a pattern in ``folder`` and is not hidden, as ``._1.xml`` of macOS is.

    Args:
        folder (Path): where to look; it may be missing.
        pattern (str): as for ``Path.glob``.
    """
    for path in folder.glob(pattern):
        parts = path.relative_to(folder).parts
        if not any(map(is_hidden, parts)):
            yield path


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder that are not hidden, relative to it; each folder once."""
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = []
        # a folder itself comes before links to it
        for name in sorted(folders, key=lambda n: os.path.islink(f'{parent}/{n}')):
            real = os.path.realpath(os.path.join(parent, name))
            if not is_hidden(name) and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        start = Path(os.path.relpath(parent, folder))
        for name in files:
            if not name.startswith('.'):
                yield (start / name).as_posix()


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
    from rich.progress import Progress  # comes with MMEngine

    results = []
    told = time.monotonic()
    in_terminal = sys.stdout.isatty()
    with (
        ThreadPoolExecutor() as pool,
        Progress(disable=not in_terminal, transient=True) as progress,
    ):
        bar = progress.add_task(f'--data: {what}', total=len(items))
        for start in range(0, len(items), 500):
            results += pool.map(check, items[start : start + 500])
            progress.update(bar, completed=len(results))
            if not in_terminal and time.monotonic() - told > 5:
                told = time.monotonic()
                print(f'--data: checked {len(results)} of {len(items)} {what}')
    return results
