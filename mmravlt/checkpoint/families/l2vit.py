"""L2ViT: https://arxiv.org/abs/2501.16182."""

import re

from .record import BACKBONE, HEAD, Family

L2VIT = Family(
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
        HEAD,
    ),
    output_norms=re.compile(r'norm[0-2]\.'),
)
