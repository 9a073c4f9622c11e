"""What is known of a family of models."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

BACKBONE = 'backbone.'

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

#: What a released classifier calls its last layer, and what mmpretrain calls it.
HEAD = (re.compile(r'^head\.(?=(?:weight|bias)$)'), 'head.fc.')


@dataclass(frozen=True)
class Partial:
    """A weight of which some models of a family have only a part.

    Attributes:
        name: Matches, in a model's name of the part, what differs.
        whole: What stands there in a file that has the whole weight.
        take: The whole weight, the part's shape -> the part; None if the whole is
            not of a shape that has it.
        left_out: What is not used of a file, in words; with ``{count}``, the number
            of weights.
        refusal: What such a file is that a model without it cannot be tested with.
    """

    name: re.Pattern
    whole: str
    take: Callable[[Tensor, Shape], Tensor | None]
    left_out: str
    refusal: str


@dataclass(frozen=True)
class Derived:
    """Values that models derive, and that files may hold.

    Attributes:
        name: Matches the whole name; the group is the part of the model.
        unlike: What values of a file are, in words, if they are not those that models
            derive; else None.
    """

    name: re.Pattern
    unlike: Callable[[Tensor], str | None]

    def part(self, name: str) -> str | None:
        """The part of the model that derives what has this name, or None."""
        found = self.name.fullmatch(name)
        return found and found[1]


@dataclass(frozen=True)
class Family:
    """How the weights of one kind of backbone are recognised and named.

    Attributes:
        name: The name of its class.
        block: Matches the name of one weight of each block; the groups are what
            stands before the backbone's own names, the stage, and the block.
        channels: The channels by the shape of that weight; None if it is a weight of
            another model, which happens to have the name.
        variants: Channels and depths of the stages by the name of the size.
        release_names: What a bare backbone or a released classifier calls its parts,
            and what a model of MMEngine calls them.
        output_norms: Matches, after ``backbone.``, the names of the output norms that
            no classifier has.
        partial: The weights of which some models have a part.
        derived: What models derive, and files may hold.
    """

    name: str
    block: re.Pattern
    channels: Callable[[Shape], int | None]
    variants: Mapping[str, tuple[Shape, Shape]]
    release_names: tuple[tuple[re.Pattern, str], ...]
    output_norms: re.Pattern
    partial: tuple[Partial, ...] = ()
    derived: tuple[Derived, ...] = ()

    def part_that_derives(self, name: str) -> str | None:
        """The part of a model that derives what a file has under a name, or None."""
        return next(filter(None, (d.part(name) for d in self.derived)), None)
