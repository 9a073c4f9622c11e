"""Files and folders, as all tasks find and check them."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
    """Files below ``folder``; hidden files and folders are left out.

    Args:
        folder (Path): where to look, subfolders and links included; a folder that is
            reached twice counts once.
        suffixes (tuple[str]): in lower case; those of the files may be in any.

    Returns:
        list[str]: sorted paths relative to ``folder``, with forward slashes.
    """
    return sorted(name for name in _walk(folder) if name.lower().endswith(suffixes))


def refuse_hidden(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Raise DataError for files in hidden folders, where a library would read them."""
    for parent, _, files in os.walk(folder):
        parts = Path(os.path.relpath(parent, folder)).parts
        hidden = next((part for part in parts if part.startswith('.')), None)
        found = sorted(name for name in files if name.lower().endswith(suffixes))
        if hidden and found:
            raise DataError(
                f'{os.path.join(parent, found[0])} lies in the hidden folder {hidden}, '
                'but would be read like the others; remove that folder.'
            )


def note_other_files(
    folder: Path, suffixes: tuple[str, ...], in_subfolders: bool = False
) -> list[str]:
    """Sentences about the files below ``folder`` that :func:`list_files` leaves out.

    Args:
        folder (Path): where to look, as :func:`list_files` does.
        suffixes (tuple[str]): those that are used.
        in_subfolders (bool): whether files directly in ``folder`` are not used either.

    Returns:
        list[str]: one about files with other suffixes and one about loose files, where
        there are some. Hidden ones are not worth a word.
    """
    names = sorted(_walk(folder))
    used = [name for name in names if name.lower().endswith(suffixes)]
    others = [name for name in names if not name.lower().endswith(suffixes)]
    notes = []
    if others:
        kinds = Counter(Path(name).suffix.lower() or 'none' for name in others)
        told = ', '.join(f'{kind}: {count}' for kind, count in kinds.most_common(5))
        notes.append(
            f'{len(others)} files in {folder} are left out for their suffix ({told}; '
            f'first: {others[0]}); used are {", ".join(suffixes)}.'
        )
    loose = [name for name in used if '/' not in name] if in_subfolders else []
    if loose:
        notes.append(
            f'{len(loose)} files lie directly in {folder}, not in one of its folders, '
            f'and are left out (first: {loose[0]}).'
        )
    return notes


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder that are not hidden, relative to it; each folder once."""
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = []
        # a folder itself comes before links to it
        for name in sorted(folders, key=lambda n: os.path.islink(f'{parent}/{n}')):
            real = os.path.realpath(os.path.join(parent, name))
            if not name.startswith('.') and real not in seen:
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
