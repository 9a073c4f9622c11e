"""The families of models whose weights are recognised, by names and shapes alone.

A file for each; to add one, write its file and list it in ``FAMILIES``.
"""

from dataclasses import dataclass
from itertools import count, takewhile

from .l2vit import L2VIT
from .ravlt import RAVLT
from .record import BACKBONE, Family, Shapes

__all__ = ['BACKBONE', 'FAMILIES', 'VARIANTS', 'Family', 'Shapes', 'Size']

FAMILIES = {family.name: family for family in (RAVLT, L2VIT)}


@dataclass(frozen=True)
class Size:
    """Channels and blocks of a backbone's stages, from the first to the last held.

    ``str()`` gives the name of the variant, e.g. RAVLT-T.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    family: str = 'RAVLT'

    def fits(self, other: 'Size') -> bool:
        """Whether the stages that both have are the same."""
        mine = zip(self.embed_dims, self.depths, strict=True)
        theirs = zip(other.embed_dims, other.depths, strict=True)
        return self.family == other.family and all(
            a == b for a, b in zip(mine, theirs, strict=False)
        )

    def __str__(self) -> str:
        names = [name for name, size in VARIANTS.items() if size.fits(self)]
        stages = len(self.depths)
        if not names or stages > 4:
            return (
                f'{self.family} with embed_dims {self.embed_dims} and depths '
                f'{self.depths}'
            )
        held = {1: ' (stage 1)', 4: ''}.get(stages, f' (stages 1 to {stages})')
        return ' or '.join(names) + held


#: All named sizes, such as RAVLT-T.
VARIANTS = {
    f'{family.name}-{variant}': Size(dims, depths, family.name)
    for family in FAMILIES.values()
    for variant, (dims, depths) in family.variants.items()
}


def find_backbones(shapes: Shapes) -> dict[str, Size]:
    """Find backbones by the weight that each of their blocks has.

    Args:
        shapes: Names and shapes of weights.

    Returns:
        What stands before the backbone's own names (``''``, ``'backbone.'``, …)
        -> its size.
    """
    channels: dict[tuple[str, str], dict[int, dict[int, int]]] = {}
    for name, shape in shapes.items():
        for family in FAMILIES.values():
            found = family.block.fullmatch(name)
            width = family.channels(shape) if found else None
            if found and width is not None:
                stages = channels.setdefault((found[1] or '', family.name), {})
                stages.setdefault(int(found[2]), {})[int(found[3])] = width
    sizes = {}
    for (root, family_name), stages in channels.items():
        held = [stages[i] for i in takewhile(stages.__contains__, count())]
        dims = tuple(next(iter(blocks.values())) for blocks in held)
        if held:
            sizes[root] = Size(dims, tuple(map(len, held)), family_name)
    return sizes
