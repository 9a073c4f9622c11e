import torch
from torch import Tensor, nn


def init_convolution(module: nn.Module) -> None:
    """Initialise a convolution as the release does; leave any other module.

    Weights are drawn from a truncated normal distribution of standard
    deviation 0.02, biases are 0. Norms keep PyTorch's 1 and 0.
    """
    if isinstance(module, nn.Conv2d):
        _draw(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        # Where both layouts are the same memory, take the strides that gradients have;
        # DDP would copy them otherwise. Elsewhere weights stay as pruning, FSDP and
        # anything that flattens them with view(-1) needs them.
        weight = module.weight.data
        if weight.is_contiguous(memory_format=torch.channels_last):
            module.weight.data = weight.to(memory_format=torch.channels_last)


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as :func:`init_convolution` does a convolution."""
    if isinstance(module, nn.Linear):
        _draw(module.weight)
        nn.init.zeros_(module.bias)


def _draw(weight: Tensor) -> None:
    # On the meta device, PyTorch takes seconds to draw nothing for a large model.
    if not weight.is_meta:
        nn.init.trunc_normal_(weight, std=0.02)
