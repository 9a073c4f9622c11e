"""Functions on tensors; they know nothing but torch and triton."""

from .kernels import rala_kernel, use_rala_kernel
from .l2vit import l2vit_attention
from .linear_attention import (
    efficient_attention,
    enhanced_attention,
    focused_attention,
    hydra_attention,
    linear_angular_attention,
    linear_attention,
)
from .rala import KAPPAS, rala, rala_kv_buffer, rala_reference
from .rope2d import rope2d_angles, rope2d_rotate, rope2d_table

__all__ = [
    'KAPPAS',
    'efficient_attention',
    'enhanced_attention',
    'focused_attention',
    'hydra_attention',
    'linear_angular_attention',
    'linear_attention',
    'l2vit_attention',
    'rala',
    'rala_kernel',
    'rala_kv_buffer',
    'rala_reference',
    'rope2d_angles',
    'rope2d_rotate',
    'rope2d_table',
    'use_rala_kernel',
]
