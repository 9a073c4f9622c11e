"""Functions on tensors; they know nothing but torch."""

from .rala import rala
from .rope2d import rope2d_angles, rope2d_rotate, rope2d_table

__all__ = ['rala', 'rope2d_angles', 'rope2d_rotate', 'rope2d_table']
