import torch
from torch import nn


def init_convolution(module: nn.Module) -> None:
    """Initialise a convolution as the release does; leave any other module.

    Weights are drawn from a truncated normal distribution of standard
    deviation 0.02, biases are 0. Norms keep PyTorch's 1 and 0.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        # The layout that their gradients have; DDP would copy them otherwise.
        module.to(memory_format=torch.channels_last)


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as :func:`init_convolution` does a convolution."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
