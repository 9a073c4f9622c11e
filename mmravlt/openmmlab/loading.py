"""A loading step for images with more than 8 bits per value, in any library."""

import numpy as np
from mmengine.registry import TRANSFORMS

from ..data.depth import to_8_bits


def install() -> None:
    """Register the step where every library finds it."""
    TRANSFORMS.register_module(module=ScaleBitDepth, force=True)


class ScaleBitDepth:
    """Scale images of 16 bits per value to 8, of which 10, 12 or 14 may be in use.

    It follows a ``LoadImageFromFile`` that keeps all bits: with ``color_type=3``, which
    is OpenCV's ``IMREAD_COLOR | IMREAD_ANYDEPTH``. (Without, OpenCV divides by 256, and
    few grey levels of a 12-bit image are left.) Images of 8 bits stay as they are.

    Args:
        bit_depth (int): 0 to 2 ** bit_depth - 1 become 0 to 255; larger values are
            clipped.
        to_float32 (bool): whether the result is float32 instead of uint8.
    """

    def __init__(self, bit_depth: int, to_float32: bool = False) -> None:
        self.bit_depth = bit_depth
        self.to_float32 = to_float32

    def __call__(self, results: dict) -> dict:
        """Scale ``results['img']``, H×W×C."""
        image = to_8_bits(results['img'], self.bit_depth)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(bit_depth={self.bit_depth}, '
            f'to_float32={self.to_float32})'
        )
