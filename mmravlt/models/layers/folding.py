"""Fold what is linear into the weights of a convolution, once, for inference.

Weights are computed at least in float32, and have the type of the convolution's.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmravlt.ops.runtime import at_least_float32


def fold_batch_norm(conv: nn.Conv2d, norm: _BatchNorm) -> nn.Conv2d:
    """``norm(conv(x))`` as one convolution, where batch statistics are fixed."""
    mean = at_least_float32(norm.get_buffer('running_mean'))
    variance = at_least_float32(norm.get_buffer('running_var'))
    weight, bias = fuse_conv_bn_weights(
        *_affine(conv), mean, variance, norm.eps, *_affine(norm)
    )
    return _like(conv, weight, bias)


def fold_layer_norm(norm: nn.LayerNorm, conv: nn.Conv2d) -> nn.Conv2d:
    """A 1×1 convolution of a normalised map, of what has only been normalised."""
    (weight, bias), (scale, shift) = _affine(conv), _affine(norm)
    bias = bias + weight.flatten(1) @ shift
    return _like(conv, weight * scale[:, None, None], bias)


def fold_scale(gamma: Tensor, conv: nn.Conv2d) -> nn.Conv2d:
    """``gamma * conv(x)`` as one convolution; gamma has the shape (1, C, 1, 1)."""
    scale = at_least_float32(gamma).flatten()
    weight, bias = _affine(conv)
    return _like(conv, weight * scale[:, None, None, None], bias * scale)


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that has both, at least in float32."""
    weight, bias = layer.get_parameter('weight'), layer.get_parameter('bias')
    return at_least_float32(weight), at_least_float32(bias)


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The convolution with other weights."""
    new = copy.deepcopy(conv)
    weight = weight.to(conv.weight.dtype, memory_format=torch.channels_last)
    new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias.to(weight.dtype))
    return new
