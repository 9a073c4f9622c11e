"""The layouts of folders that people have, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..base import DataError


@dataclass(frozen=True)
class Layout:
    """How a tool names files and what it writes into them.

    Attributes:
        name (str): as people call it.
        described (str): the files that make it, in a few words.
        find (Callable): takes a folder; tells by which file in it this layout is
            recognised, or gives None. Opens what it must to be sure.
        read (Callable): ``(root, splits)`` reads the data of these splits, of 'train'
            and 'val', by their names; data that has no part for validation is under
            'all'. What is odd but has one right reading is in the listings; layouts of
            objects count it in a third argument, ``findings``. May raise DataError.
        plain (bool): whether its files have names that mean nothing else: it is taken
            even where another layout fits, too.
    """

    name: str
    described: str
    find: Callable[[Path], str | None]
    read: Callable[..., dict]
    plain: bool = False


def choose_layout(root: Path, layouts: Iterable[Layout]) -> Layout:
    """The layout of a folder.

    Raises:
        DataError: if it is of none or of several; lists all, and what was found.
    """
    layouts = list(layouts)
    for layout in layouts:
        if layout.plain and layout.find(root):
            return layout
    found = {layout.name: layout.find(root) for layout in layouts}
    fitting = [layout for layout in layouts if found[layout.name]]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        seen = ' and '.join(f'{x.name} ({found[x.name]})' for x in fitting)
        raise DataError(
            f'{root} has files of more than one layout: {seen}; leave one of them.'
        )
    known = '; '.join(f'{layout.name}: {layout.described}' for layout in layouts)
    there = sorted(path.name for path in root.iterdir())
    raise DataError(
        f'{root} is in none of the layouts that are known here ({known}); found there: '
        f'{", ".join(there[:10]) or "nothing"}{", …" if len(there) > 10 else ""}.'
    )
