from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mmravlt.ops.runtime import is_recording


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Append zeros at the right and the bottom, until the sides of a map divide.

    Args:
        x (Tensor): map, shape (B, C, H, W).
        multiple (int): what H and W shall be multiples of.

    Returns:
        Tensor: shape (B, C, H', W'); the map itself, if nothing is missing.
    """
    right, bottom = -x.shape[3] % multiple, -x.shape[2] % multiple
    # A compiler would make a graph for each answer of the condition.
    missing = is_recording() or right or bottom
    return F.pad(x, (0, right, 0, bottom)) if missing else x


def to_windows(x: Tensor, size: int) -> Tensor:
    """Cut (B, C, H, W) into (B * H / size * W / size, C, size, size), row by row."""
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).flatten(0, 2).permute(0, 3, 1, 2)


def from_windows(windows: Tensor, shape: Sequence[int]) -> Tensor:
    """Join what :func:`to_windows` gave of maps of H×W pixels."""
    size = windows.shape[-1]
    x = windows.permute(0, 2, 3, 1)
    x = x.unflatten(0, (-1, shape[0] // size, shape[1] // size)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
