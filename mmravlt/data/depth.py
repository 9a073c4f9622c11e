"""Images with more than 8 bits per value, such as those of 12-bit cameras."""

from __future__ import annotations

from functools import cache

import numpy as np

BIT_DEPTHS = (8, 10, 12, 14, 16)  # that cameras and scanners have


def smallest_bit_depth(largest: int) -> int:
    """The smallest of :data:`BIT_DEPTHS` that holds a value (up to 65535)."""
    return next(depth for depth in BIT_DEPTHS if largest < 2**depth)


def to_8_bits(pixels: np.ndarray, bit_depth: int) -> np.ndarray:
    """Scale 16-bit values so that 0 to 2 ** bit_depth - 1 become 0 to 255.

    Args:
        pixels (ndarray): of any shape, uint16; uint8 is returned as it is.
        bit_depth (int): how many bits are in use; larger values are clipped.

    Returns:
        ndarray: of the same shape, uint8.

    Raises:
        TypeError: if the values are of another type.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise TypeError(
            f'The pixels are {pixels.dtype}, but --bit-depth is for images of 8 or 16 '
            'bits per value.'
        )
    return _table(bit_depth)[pixels]


@cache
def _table(bit_depth: int) -> np.ndarray:
    """What each of 65536 values becomes."""
    top = 2**bit_depth - 1
    return np.rint(np.arange(2**16).clip(max=top) * (255 / top)).astype(np.uint8)
