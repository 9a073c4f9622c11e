"""Data is read and checked once, and again only when its files have changed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..version import __version__
from .base import DataError, DataOptions, Prepared


def prepare_once(
    root: Path,
    task: str,
    options: DataOptions,
    prepare: Callable[[Path], Prepared],
) -> Prepared:
    """What ``prepare`` returns, from the cache where the data has not changed.

    Of several processes on a machine, the first one prepares; the others wait for it.

    Args:
        root (Path): the folder of the data, absolute.
        task (str): name of the task.
        options (DataOptions): whatever ``prepare`` depends on besides the files.
        prepare (Callable): takes a folder in the cache, where it may keep files that
            training reads, written by :func:`write_text` or in the same way; may raise
            DataError, which is cached, too.

    Returns:
        Prepared: as returned by ``prepare``.

    Raises:
        DataError: that of ``prepare``.
    """
    import cv2  # models can be counted without it

    state = fingerprint(root)
    key = dict(root=str(root), task=task, options=asdict(options), state=state)
    key.update(mmravlt=__version__, opencv=cv2.__version__)
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir() / f'{root.name}-{name}'
    record = _read(folder)
    if record is None and int(os.environ.get('LOCAL_RANK', 0)) and _writable(folder):
        while record is None:  # the launcher ends this process if the first one died
            time.sleep(0.5)
            record = _read(folder)
    if record is None:
        record = _prepare(folder, prepare)
    if 'error' in record:
        raise DataError(record['error'])
    return Prepared(**record['prepared'])


def cache_dir() -> Path:
    """``data`` below ``MMRAVLT_CACHE``, or ``mmravlt`` in the user's cache."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('MMRAVLT_CACHE') or Path(home) / 'mmravlt') / 'data'


def fingerprint(root: Path) -> str:
    """Changes with the names, sizes and times of the files in a folder."""
    digest = hashlib.sha256()
    for path, status in _walk(root, set()):
        line = f'{path}\0{status.st_size}\0{status.st_mtime_ns}\n'
        digest.update(line.encode(errors='surrogateescape'))
    return digest.hexdigest()


def _walk(folder: Path | str, seen: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """All files below a folder; what is linked is followed, once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _walk(entry.path, seen)
            elif entry.is_file():  # a link to nothing is neither
                yield entry.path, entry.stat()


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it is there; processes may compete."""
    partial = path.with_name(f'{path.name}.{os.getpid()}')
    # names of files need not be UTF-8
    partial.write_text(text, encoding='utf-8', errors='surrogateescape')
    os.replace(partial, path)


def _read(folder: Path) -> dict | None:
    """The record in a folder of the cache."""
    try:
        return json.loads((folder / 'record.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def _writable(folder: Path) -> bool:
    """Make a folder of the cache, if that is possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _prepare(folder: Path, prepare: Callable[[Path], Prepared]) -> dict:
    """Prepare data and keep the record of it, if there is a place for it."""
    if not _writable(folder):
        folder = Path(tempfile.mkdtemp(prefix='mmravlt-data-'))
    try:
        record = dict(prepared=asdict(prepare(folder)))
    except DataError as error:
        record = dict(error=str(error))
    write_text(folder / 'record.json', json.dumps(record))
    return record
