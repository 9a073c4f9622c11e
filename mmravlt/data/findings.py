"""What is odd about data, counted."""

from __future__ import annotations

from .base import DataError


class Findings:
    """Counts what was found, by split and reason, and keeps the first example.

    A split of which nothing is left is refused with the same words.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list] = {}

    def add(self, split: str, reason: str, example: str, count: int = 1) -> None:
        """Count something.

        Args:
            split (str): 'train' or 'val'.
            reason (str): what follows the count, such as
                'objects are crowds (iscrowd 1) and left out'.
            example (str): names the file, image or annotation, and its value.
            count (int): how many there are.
        """
        entry = self._found.setdefault((split, reason), [0, example])
        entry[0] += count

    def notes(self, split: str | None = None) -> list[str]:
        """A sentence for each split and reason, the most frequent ones first."""
        rows = [
            (count, f'{where}: {count} {reason} (first: {example}).')
            for (where, reason), (count, example) in self._found.items()
            if split in (None, where)
        ]
        return [text for _, text in sorted(rows, key=lambda row: -row[0])]

    def refuse(self, split: str, what: str) -> None:
        """Raise the error for a split of which nothing is left.

        Args:
            split (str): 'train' or 'val'.
            what (str): what is not left, and what follows from that.

        Raises:
            DataError: always.
        """
        reasons = ' '.join(self.notes(split))
        raise DataError(f'{what} {reasons}'.strip())
