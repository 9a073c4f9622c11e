"""Random weights in a fraction of the time that large models take to draw theirs."""

from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn


@contextmanager
def quick_init():
    """Let ``torch.nn.init`` repeat a few random numbers, at the scale it asks for."""
    uniform, normal = torch.rand(2**14), torch.randn(2**14)

    def fill(tensor, numbers):
        repeated = numbers.repeat(-(-tensor.numel() // len(numbers)))
        with torch.no_grad():
            return tensor.copy_(repeated[: tensor.numel()].view(tensor.shape))

    def uniform_(tensor, low=0.0, high=1.0, generator=None):
        return fill(tensor, uniform * (high - low) + low)

    def normal_(tensor, mean=0.0, std=1.0, generator=None):
        return fill(tensor, normal * std + mean)

    def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):
        return fill(tensor, (normal * std + mean).clamp(a, b))

    with (
        mock.patch.object(torch.Tensor, 'uniform_', uniform_),
        mock.patch.object(torch.Tensor, 'normal_', normal_),
        mock.patch.object(nn.init, 'trunc_normal_', trunc_normal_),
    ):
        yield
