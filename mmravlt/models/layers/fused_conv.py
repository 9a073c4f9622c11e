"""Convolutions computed in less time than by calling them as they are.

Most take a neighbouring operation into their weights: gradients follow by themselves,
and a pass over the map is saved each time. In half precision the changed weights would
lose too much (a small scale vanishes, a tap of 1 swallows its neighbours), and a
convolution that somebody replaced, or hooked as pruning does, is called as it is; both
then compute step by step.
"""

import copy
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmravlt.ops.runtime import autocast_dtype, is_recording


def scaled_conv(conv: nn.Module, gamma: Tensor, x: Tensor) -> Tensor:
    """Compute ``gamma * conv(x)``.

    Args:
        conv (nn.Module): a 1×1 convolution; one without a bias is called as it is.
        gamma (Tensor): a factor for each of its channels, shape (1, C, 1, 1).
        x (Tensor): its input.

    Returns:
        Tensor: shape (B, C, H, W).
    """
    if not _can_fuse(conv, x) or conv.bias is None:
        return gamma * conv(x)
    scale = gamma.flatten()
    return F.conv2d(x, scale[:, None, None, None] * conv.weight, scale * conv.bias)


def residual_conv(conv: nn.Module, x: Tensor) -> Tensor:
    """Compute ``x + conv(x)``: the identity is one more of the middle taps.

    Args:
        conv (nn.Module): a depthwise convolution of odd size that keeps H and W.
        x (Tensor): its input, shape (B, C, H, W).

    Returns:
        Tensor: shape (B, C, H, W).
    """
    if isinstance(conv, ResidualConv):
        return conv(x)
    if not _can_fuse(conv, x):
        return x + conv(x)
    weight = conv.weight + _identity(conv.weight)
    return F.conv2d(x, weight, conv.bias, padding=conv.padding, groups=conv.groups)


class ResidualConv(nn.Module):
    """:func:`residual_conv` with the identity added to the weights once."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv)
        self.folded = copy.deepcopy(conv)
        weight = self.folded.get_parameter('weight')
        with torch.no_grad():
            weight.add_(_identity(weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.folded(x) if is_exact(x) else x + self.conv(x)


def _identity(weight: Tensor) -> Tensor:
    """The depthwise weights (1, 1, height, width) that change nothing."""
    taps = torch.zeros_like(weight[:1])
    taps[..., taps.shape[-2] // 2, taps.shape[-1] // 2] = 1
    return taps


def split_conv(conv: nn.Module, chunks: int, x: Tensor) -> tuple[Tensor, ...]:
    """Compute ``conv(x).chunk(chunks, dim=1)``.

    On a CPU each chunk has its own convolution with its chunk of the weights, so that
    in the backward pass nothing has to join the gradients of the chunks.

    Args:
        conv (nn.Module): a 1×1 convolution; one without a bias is called as it is.
        chunks (int): a divisor of its channels C.
        x (Tensor): its input.

    Returns:
        tuple[Tensor]: each of shape (B, C / chunks, H, W).
    """
    if (
        not is_plain(conv)
        or conv.bias is None
        or x.device.type != 'cpu'
        or is_recording()
    ):
        return conv(x).chunk(chunks, dim=1)
    pairs = zip(conv.weight.chunk(chunks), conv.bias.chunk(chunks), strict=True)
    return tuple(F.conv2d(x, weight, bias) for weight, bias in pairs)


def wide_depthwise_conv(conv: nn.Module, x: Tensor) -> Tensor:
    """Compute ``conv(x)``, on a CPU with a faster gradient of the weights.

    oneDNN takes nine times as long for the gradient of weights of 5×5 as for 5×3, where
    it unrolls the columns. So it is given three columns of the weights at a time.

    Args:
        conv (nn.Module): any layer; one that is no depthwise convolution wider than
            three columns that keeps H and W is called as it is.
        x (Tensor): its input, shape (B, C, H, W).

    Returns:
        Tensor: shape (B, C, H, W).
    """
    is_trained = x.device.type == 'cpu' and torch.is_grad_enabled()
    if (
        not is_trained
        or is_recording()
        or not _can_fuse(conv, x)
        or not _is_wide_depthwise(conv)
        or x.shape[3] < conv.kernel_size[1]
    ):
        return conv(x)
    return _WideDepthwiseConv.apply(x, conv.weight, conv.bias)


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    reach = tuple(side // 2 for side in conv.kernel_size)
    is_same = conv.padding == reach and all(side % 2 for side in conv.kernel_size)
    return (
        is_same
        and conv.kernel_size[1] > 3
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
    )


class _WideDepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, columns = (side // 2 for side in weight.shape[2:])
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = _depthwise_backward(dy, x, weight, (rows, columns), 0)
        if ctx.needs_input_grad[1]:
            chunks, left = [], columns
            for chunk in weight.split(3, dim=3):
                right = chunk.shape[3] - 1 - left
                near = F.pad(x, (left, right))
                chunks.append(_depthwise_backward(dy, near, chunk, (rows, 0), 1))
                left -= chunk.shape[3]
            dweight = torch.cat(chunks, dim=3)
        if ctx.needs_input_grad[2]:
            dbias = dy.sum((0, 2, 3))
        return dx, dweight, dbias


def _depthwise_backward(
    dy: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: int
) -> Tensor:
    """The gradient of x (``wanted`` is 0) or of the weights (1)."""
    mask = [i == wanted for i in range(3)]
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), len(weight), mask
    )[wanted]


def _can_fuse(conv: nn.Module, x: Tensor) -> TypeGuard[nn.Conv2d]:
    return is_plain(conv) and is_exact(x)


def is_exact(x: Tensor) -> bool:
    """Whether a convolution of x keeps small changes of its weights."""
    is_wide = x.dtype in (torch.float32, torch.float64)
    return is_wide and autocast_dtype(x.device.type) is None


def is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether nobody replaced, hooked or patched a convolution."""
    hooks = ('forward_pre', 'forward', 'backward_pre', 'backward')
    hooked = any(getattr(conv, f'_{kind}_hooks') for kind in hooks)
    return type(conv) is nn.Conv2d and not hooked and 'forward' not in vars(conv)
