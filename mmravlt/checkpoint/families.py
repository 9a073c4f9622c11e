"""The families of models whose weights are recognised, by names and shapes alone."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile

BACKBONE = 'backbone.'

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


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
    """

    name: str
    block: re.Pattern
    channels: Callable[[Shape], int | None]
    variants: Mapping[str, tuple[Shape, Shape]]
    release_names: tuple[tuple[re.Pattern, str], ...]
    output_norms: re.Pattern


_HEAD = (re.compile(r'^head\.(?=(?:weight|bias)$)'), 'head.fc.')

_RAVLT = Family(
    name='RAVLT',
    block=re.compile(r'(.*\.)?layers\.(\d+)\.blocks\.(\d+)\.gamma_1'),
    # Other models have a gamma_1 too, but along the last dimension.
    channels=lambda shape: shape[1] if len(shape) == 4 and shape[1] > 1 else None,
    variants={  # Table 1 of the paper
        'T': ((64, 128, 256, 512), (2, 2, 6, 2)),
        'S': ((64, 128, 320, 512), (3, 5, 9, 3)),
        'B': ((96, 192, 384, 512), (4, 6, 12, 6)),
        'L': ((96, 192, 448, 640), (4, 7, 19, 8)),
    },
    release_names=(
        (re.compile(r'^(?=(?:patch_embed|layers|extra_norms)\.)'), BACKBONE),
        (re.compile(r'^(?=(?:proj|norm)\.)'), 'neck.'),
        _HEAD,
    ),
    output_norms=re.compile(r'extra_norms\.'),
)
_L2VIT = Family(
    name='L2ViT',
    block=re.compile(r'(.*\.)?stages\.(\d+)\.(\d+)\.cpe\.0\.proj\.weight'),
    channels=lambda shape: shape[0] if shape[1:] == (1, 3, 3) else None,
    variants={
        'T': ((96, 192, 384, 768), (2, 2, 6, 2)),
        'S': ((96, 192, 384, 768), (2, 2, 18, 2)),
        'B': ((128, 256, 512, 1024), (2, 2, 18, 2)),
    },
    release_names=(
        (re.compile(r'^(?=(?:downsample_layers|stages|norm\d)\.)'), BACKBONE),
        # A classifier has one norm, after the last stage.
        (re.compile(r'^norm\.'), f'{BACKBONE}norm3.'),
        _HEAD,
    ),
    output_norms=re.compile(r'norm[0-2]\.'),
)
FAMILIES = {family.name: family for family in (_RAVLT, _L2VIT)}


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
            if width is not None:
                stages = channels.setdefault((found[1] or '', family.name), {})
                stages.setdefault(int(found[2]), {})[int(found[3])] = width
    sizes = {}
    for (root, family_name), stages in channels.items():
        held = [stages[i] for i in takewhile(stages.__contains__, count())]
        dims = tuple(next(iter(blocks.values())) for blocks in held)
        if held:
            sizes[root] = Size(dims, tuple(map(len, held)), family_name)
    return sizes
