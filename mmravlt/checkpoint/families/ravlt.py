"""RAVLT: https://arxiv.org/abs/2411.07635."""

import re

import torch
from torch import Tensor

from ...ops.rope2d import rope2d_angles
from .record import BACKBONE, HEAD, Derived, Family, Partial, Shape


def _queries_keys_values(qkvo: Tensor, shape: Shape) -> Tensor | None:
    """The rows of a convolution ``qkvo`` that a model without a gate has."""
    fits = tuple(qkvo.shape) == (shape[0] // 3 * 4, *shape[1:])
    return qkvo[: shape[0]] if fits else None


def _unlike_frequencies(angles: Tensor) -> str | None:
    """What RoPE frequencies are, if not RAVLT's."""
    expected = rope2d_angles(2 * angles.numel())
    if torch.allclose(angles.float().cpu(), expected, rtol=1e-5, atol=0):
        return None
    return "other RoPE frequencies than RAVLT's"


RAVLT = Family(
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
        HEAD,
    ),
    output_norms=re.compile(r'extra_norms\.'),
    partial=(
        Partial(
            name=re.compile(r'(?<=\.attn\.)qkv(?=\.)'),
            whole='qkvo',
            take=_queries_keys_values,
            left_out="the gate's rows of {count} weights attn.qkvo, which are attn.qkv "
            'here',
            refusal='is of a model whose attention has a gate, and this model has none',
        ),
    ),
    derived=(Derived(re.compile(r'(.+)\.RoPE\.angle'), _unlike_frequencies),),
)
