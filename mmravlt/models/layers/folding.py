"""Fold what is linear into the weights of a convolution, once, for inference.

Weights are computed at least in float32, and have the type of the convolution's.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmravlt.ops.runtime import at_least_float32


def fold_batch_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """``norm(conv(x))`` as one convolution, where batch statistics are fixed."""
    statistics = at_least_float32(norm.running_mean), at_least_float32(norm.running_var)
    weight, bias = fuse_conv_bn_weights(
        *(at_least_float32(conv.weight), at_least_float32(conv.bias), *statistics),
        *(norm.eps, at_least_float32(norm.weight), at_least_float32(norm.bias)),
    )
    return _like(conv, weight, bias)


def fold_layer_norm(norm: nn.LayerNorm, conv: nn.Conv2d) -> nn.Conv2d:
    """A 1×1 convolution of a normalised map, of what has only been normalised."""
    weight, bias = at_least_float32(conv.weight), at_least_float32(conv.bias)
    bias = bias + weight.flatten(1) @ at_least_float32(norm.bias)
    return _like(conv, weight * at_least_float32(norm.weight)[:, None, None], bias)


def fold_scale(gamma: Tensor, conv: nn.Conv2d) -> nn.Conv2d:
    """``gamma * conv(x)`` as one convolution; gamma has the shape (1, C, 1, 1)."""
    scale = at_least_float32(gamma).flatten()
    weight = at_least_float32(conv.weight) * scale[:, None, None, None]
    return _like(conv, weight, at_least_float32(conv.bias) * scale)


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The convolution with other weights."""
    with torch.device('meta'):
        new = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
        )
    weight = weight.to(conv.weight.dtype, memory_format=torch.channels_last)
    new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias.to(conv.bias.dtype))
    return new
