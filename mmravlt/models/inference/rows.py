"""Work on a large map by chunks of its rows, so that little exists beside it."""

import math
from collections.abc import Callable
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What exists beside the map, in channels of it: while attention works on the whole map,
# its keys, values, queries, gate, result and the normalised map; while a block works on
# some rows, the FFN's hidden maps of ratio 3.5, before and after GELU, and some more.
ATTENTION = 6
ROWS = 10
# MiB. On a CPU, more than its cache holds is slower; a GPU likes many rows at a time.
_DEFAULTS = {'cpu': 24, 'cuda': 1024}


class Budget:
    """The memory that tensors beside the maps may take.

    Args:
        mebibytes (float | None): None takes 24 on a CPU and 1024 on a GPU.

    Raises:
        ValueError: if it is not a positive number.
    """

    def __init__(self, mebibytes: float | None) -> None:
        is_number = isinstance(mebibytes, Real) and mebibytes is not True
        if mebibytes is not None and not (is_number and 0 < mebibytes < math.inf):
            raise ValueError(
                f'memory_budget is {mebibytes!r}; give a number of MiB above 0, or '
                'None.'
            )
        self.mebibytes = mebibytes

    def chunks(
        self, x: Tensor, maps: int = ROWS, shape: tuple[int, ...] | None = None
    ) -> list[slice]:
        """Chunks of rows, as even as possible, whose temporaries fit.

        All have at least two rows, as many as a depthwise convolution reaches, unless
        the map has only one.

        Args:
            x (Tensor): map, shape (B, C, H, W).
            maps (int): how many maps of its size the temporaries take.
            shape (tuple[int, ...] | None): of the map, if it is another one of the
                same type.
        """
        *sizes, height, width = shape or x.shape
        row = math.prod(sizes) * width * maps * x.dtype.itemsize
        rows = max(1, self._bytes(x) // max(1, row))
        count = min(math.ceil(height / rows), max(1, height // 2))
        bounds = [height * i // count for i in range(count + 1)]
        return [slice(*ends) for ends in zip(bounds[:-1], bounds[1:], strict=True)]

    def images(self, x: Tensor, size: int) -> list[slice]:
        """Chunks of a batch, so that ``size`` elements for each image fit."""
        count = max(1, self._bytes(x) // max(1, size * x.dtype.itemsize))
        return [slice(i, i + count) for i in range(0, x.shape[0], count)]

    def _bytes(self, x: Tensor) -> int:
        return int((self.mebibytes or _DEFAULTS.get(x.device.type, 24)) * 2**20)


class ConvsByRows(nn.Module):
    """Convolutions one after another, by chunks of rows of the last one's result.

    Args:
        layers (nn.Sequential): convolutions, and layers that work on each pixel alone.
        budget (Budget): for what exists beside image and result.
    """

    def __init__(self, layers: nn.Sequential, budget: Budget) -> None:
        super().__init__()
        self.layers = layers
        self.budget = budget
        *_, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        self.out_channels = last.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to what all layers make of it, in channels_last."""
        heights, width = [x.shape[2]], x.shape[3]
        for layer in self.layers:
            stride = layer.stride[0] if isinstance(layer, nn.Conv2d) else 1
            heights.append(math.ceil(heights[-1] / stride))
            width = math.ceil(width / stride)
        shape = (x.shape[0], self.out_channels, heights[-1], width)
        chunks = self.budget.chunks(x, shape=shape)
        if len(chunks) == 1:
            return self.layers(x.contiguous(memory_format=torch.channels_last))

        for chunk in chunks:
            rows = self._rows(x, heights, chunk.start, chunk.stop)
            if chunk.start == 0:
                result = empty_map(rows, shape)
            result[:, :, chunk] = rows
        return result

    def _rows(self, x: Tensor, heights: list[int], start: int, stop: int) -> Tensor:
        """Rows of the last of the layers whose input and results have ``heights``."""
        if len(heights) == 1:
            rows = x[:, :, start:stop]
            return rows.contiguous(memory_format=torch.channels_last)
        *heights, _ = heights
        layer = self.layers[len(heights) - 1]
        if not isinstance(layer, nn.Conv2d):
            return layer(self._rows(x, heights, start, stop))
        assert not isinstance(layer.padding, str)  # RAVLT's are numbers
        stride, padding = layer.stride[0], layer.padding[0]
        first = start * stride - padding
        last = (stop - 1) * stride - padding + layer.kernel_size[0]
        a, b = max(first, 0), min(last, heights[-1])
        rows = self._rows(x, heights, a, b)
        if b - a < last - first:
            rows = F.pad(rows, (0, 0, a - first, last - b))
        sides = (0, layer.padding[1])  # rows bring their halo
        return F.conv2d(rows, layer.weight, layer.bias, layer.stride, sides)


def with_halo(chunk: slice, halo: int) -> tuple[slice, slice]:
    """Rows of a map with those around them, and where these rows are therein."""
    first = max(chunk.start - halo, 0)
    inner = slice(chunk.start - first, chunk.stop - first)
    return slice(first, chunk.stop + halo), inner


def overwrite(
    x: Tensor,
    chunks: list[slice],
    halo: int,
    compute: Callable[[Tensor, slice, slice], Tensor],
) -> None:
    """Compute a map anew from itself, in place, by chunks of rows.

    Args:
        x (Tensor): map, shape (B, C, H, W).
        chunks (list[slice]): all its rows.
        halo (int): how many of the rows on either side a chunk is computed from.
        compute (Callable): new rows from old ones, which bring their halo, from where
            the rows are therein, and from where they are in the map.
    """
    late = None  # new rows whose old ones the next chunk still needs
    for chunk in chunks:
        around, inner = with_halo(chunk, halo)
        new = compute(x[:, :, around], inner, chunk)
        if late is not None:
            x[:, :, chunk.start - halo : chunk.start] = late
        ready = chunk.stop - (halo if chunk.stop < x.shape[2] else 0)
        x[:, :, chunk.start : ready] = new[:, :, : ready - chunk.start]
        late = new[:, :, ready - chunk.start :].clone()


def empty_map(
    like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """A map of ``shape`` in channels_last."""
    return torch.empty(
        shape,
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )
