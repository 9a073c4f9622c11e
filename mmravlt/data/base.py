"""What all tasks ask of data, and what they are given."""

from __future__ import annotations

from dataclasses import dataclass, field


class DataError(ValueError):
    """The data is not what is needed; the message says what to fix."""


@dataclass(frozen=True)
class DataOptions:
    """What a user may choose about data.

    Attributes:
        splits (tuple[str]): what is needed, of 'train' and 'val'.
        masks (bool): of objects: whether each must have a mask.
        check (bool): whether values and files are checked; layouts always are.
        val_fraction (float | None): how much of the images without a split of their
            own is for validation, between 0 and 1.
        seed (int): of the random choice of those.
        bit_depth (int | None): of images with more than 8 bits per value, how many are
            in use; None takes the smallest of 8, 10, 12, 14 and 16 that holds all.
        longest_side (int | None): to how many pixels at most the longer side of an
            image is resized, where its shape is kept.
    """

    splits: tuple[str, ...] = ('train', 'val')
    masks: bool = False
    check: bool = True
    val_fraction: float | None = None
    seed: int = 0
    bit_depth: int | None = None
    longest_side: int | None = None


@dataclass
class Prepared:
    """Data that was found and made ready. JSON can hold all of it.

    Attributes:
        layout (str): as people call it, such as 'COCO'.
        classes (list[str]): names in the order of their indices.
        splits (dict[str, dict]): by 'train' and 'val', whatever the task needs to find
            the data, and ``images``, their number.
        notes (list[str]): what a user should know, a sentence each.
        bit_depth (int | None): how many bits are in use of images that have more than
            8 per value; None where there are none.
        things (int | None): of panoptic data: how many of the classes, the first ones,
            are things.
    """

    layout: str
    classes: list[str]
    splits: dict[str, dict]
    notes: list[str] = field(default_factory=list)
    bit_depth: int | None = None
    things: int | None = None

    @property
    def found(self) -> str:
        """Layout, classes and the numbers of each split, in one line."""
        splits = (
            f'{name} {split["images"]} images'
            + (f' with {split["objects"]} objects' if 'objects' in split else '')
            for name, split in sorted(self.splits.items())
        )
        count = len(self.classes)  # none where the classes are those of the dataset
        words = f', {count} {"class" if count == 1 else "classes"}' if count else ''
        return f'{self.layout}{words}; {"; ".join(splits)}'
