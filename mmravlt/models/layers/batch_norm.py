"""Batch normalisation of large maps with accurate statistics on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmravlt.ops.runtime import is_recording

# So many values are added up in float32 without harm.
_PIXELS = 2048
# Sums that are made at a time, as many as a CPU's cache takes.
_SUMS = 2**14


def call_normalising(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module whose batch normalisations take accurate statistics on a CPU.

    In training on a CPU, PyTorch adds up a channels_last map value by value in
    float32: of half a million pixels with mean 3 and standard deviation 1, mean and
    deviation are off by 5e-5. Here, hundreds of partial sums are added up in float64
    instead, which takes no more time. All else, such as hooks, running statistics and
    the formula of the gradient, is the module's and PyTorch's own.

    Args:
        module (nn.Module): batch normalisation of any kind, or a module that has some.
        x (Tensor): its input.

    Returns:
        Tensor: its output.
    """
    if is_recording() or x.device.type != 'cpu':
        return module(x)
    with _AccurateStatistics():
        return module(x)


class _AccurateStatistics(TorchFunctionMode):
    """Where every kind of batch normalisation ends up, it takes another function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm:
            func = _batch_norm
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """What :func:`torch.nn.functional.batch_norm` computes."""
    if not training or not _is_inaccurate(x, weight):
        return F.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
    with torch.no_grad():
        mean, variance = _statistics(x)
        count = x.numel() // x.shape[1]
        updates = (running_mean, mean), (running_var, variance * count / (count - 1))
        for running, value in updates:
            if running is not None:
                running.copy_(torch.lerp(running.double(), value, momentum))
    return _Normalise.apply(x, weight, bias, mean, variance, eps)


def _is_inaccurate(x: Tensor, weight: Tensor | None) -> bool:
    """Whether PyTorch would add up many values in float32."""
    return (
        type(x) is Tensor
        and x.dtype == torch.float32
        and (weight is None or weight.dtype == torch.float32)
        and x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > _PIXELS * x.shape[1]
    )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the channels of a channels_last map, in float64."""
    channels = x.shape[1]
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    # Neighbouring pixels are summed up apart, as if they were channels of one.
    groups = max(1, min(_SUMS // channels, len(pixels) // 64))
    size = len(pixels) // groups
    apart, rest = pixels[: groups * size], pixels[groups * size :].double()
    apart = apart.view(1, size, 1, groups * channels).permute(0, 3, 1, 2)
    means, variances = (
        value.view(groups, channels).double()
        for value in torch.batch_norm_update_stats(apart, None, None, 0.0)
    )
    mean = (means.sum(0) * size + rest.sum(0)) / len(pixels)
    squares = (variances + (means - mean).square()).sum(0) * size
    return mean, (squares + (rest - mean).square().sum(0)) / len(pixels)


class _Normalise(torch.autograd.Function):
    """Normalisation with given statistics, differentiated as if it had made them."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        return F.batch_norm(x, mean.float(), variance.float(), weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        x, weight, _, mean, variance, ctx.eps = inputs
        deviation = (variance + ctx.eps).rsqrt()
        ctx.save_for_backward(x, weight, mean.float(), deviation.float())

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            *(dy, x, weight, None, None, mean, inverse_deviation),
            *(True, ctx.eps, ctx.needs_input_grad[:3]),
        )
        return *gradients, None, None, None
