"""What became of the weights of a file, in a few lines for the user."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from .contents import Contents
from .families import BACKBONE, FAMILIES
from .families.record import Partial


@dataclass
class Report:
    """What became of a file's weights; ``str()`` says it, in a few lines.

    Attributes:
        contents: What the file holds.
        file: What to call it.
        loaded: Names of the model that got the file's weights.
        new: Names of the model that the file does not have.
        changed: Names of the model that the file has in another shape ->
            (shape in the file, shape in the model).
        partial: Names of the model, among those loaded, that are a part of a weight
            of the file -> of which.
        unused: Names in the file that the model has no place for.
        used: All other names in the file.
        is_part: The model is a part of what the file is for, or the reverse, so
            that unused names are no surprise.
    """

    contents: Contents
    file: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    changed: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    partial: dict[str, Partial] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    is_part: bool = False

    @property
    def output_norms(self) -> list[str]:
        """Output norms that no classifier has, and so a detector trains anew."""
        size = self.contents.size
        if size is None:
            return []
        pattern = FAMILIES[size.family].output_norms

        def is_norm(name: str) -> bool:
            return pattern.match(name.removeprefix(BACKBONE)) is not None

        held = any(map(is_norm, self.contents.weights))
        return [] if held else list(filter(is_norm, self.new))

    @property
    def lacking(self) -> str:
        """The model's names that got no weights, shortened to their parts."""
        return _in_groups([*self.new, *self.changed], self.loaded)

    @property
    def differs(self) -> bool:
        """Whether the file and the model do not hold exactly the same."""
        return bool(self.new or self.changed or self.partial or self.unused)

    @property
    def level(self) -> int:
        """INFO where all is as expected, else WARNING."""
        is_odd = bool(self.changed or self.partial)
        if len(self.new) > len(self.output_norms):
            is_odd = True
        if self.unused and not self.is_part:
            is_odd = True
        return logging.WARNING if is_odd else logging.INFO

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.new) + len(self.changed)
        lines = [
            f'{self.file} ({self.contents}): '
            f'loaded {len(self.loaded)} of the {total} weights of this model'
        ]
        norms = self.output_norms
        if norms:
            lines.append(
                f'  new, as expected: {_in_groups(norms, self.loaded)}, the output '
                f'norms that a classifier does not have'
            )
        other = [name for name in self.new if name not in norms]
        if other:
            lines.append(f'  new, not in the file: {_in_groups(other, self.loaded)}')
        if self.changed:
            lines.append('  new, of another shape in the file:')
        for name, (theirs, ours) in islice(self.changed.items(), 60):
            lines.append(
                f'    {name}: {_times(theirs)} in the file, {_times(ours)} here'
            )
        if len(self.changed) > 60:
            lines.append(f'    and {len(self.changed) - 60} more')
        for partial, count in Counter(self.partial.values()).items():
            left_out = partial.left_out.format(count=count)
            lines.append(f'  not used of the file: {left_out}')
        if self.unused:
            groups = _in_groups(self.unused, self.used)
            lines.append(f'  not used of the file: {groups}')
        return '\n'.join(lines)


def _times(shape: tuple[int, ...]) -> str:
    return '×'.join(map(str, shape)) or 'one number'


def _in_groups(names: Iterable[str], others: Iterable[str]) -> str:
    """Names, shortened to the longest parts of which no name is among others."""
    shared = {part for name in others for part in name_parts(name)}
    groups = Counter(
        next((p for p in name_parts(name) if p not in shared), name) for name in names
    )
    shown = [f'{group} ({n})' for group, n in islice(groups.items(), 20)]
    more = [f'and {len(groups) - 20} more'] if len(groups) > 20 else []
    return ', '.join(shown + more)


def name_parts(name: str) -> Iterator[str]:
    """For a.b.c: a, a.b, a.b.c."""
    words = name.split('.')
    return ('.'.join(words[: i + 1]) for i in range(len(words)))
