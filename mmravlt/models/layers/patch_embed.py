import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batch_norm import call_normalising
from .folding import fold_batch_norm
from .gelu import GELU2d
from .norm_cfg import build_batch_norm
from .recompute import call_recomputing_input


def conv_norm(
    in_channels: int, out_channels: int, stride: int, norm_cfg: dict
) -> tuple[nn.Conv2d, _BatchNorm]:
    """A 3×3 convolution with a bias, and batch normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
    return conv, build_batch_norm(norm_cfg, out_channels)


class PatchEmbed(nn.Module):
    """Stem of four 3×3 convolutions; the first and the last halve the map.

    Args:
        in_channels (int): channels of the image.
        channels (int): C of the first stage; the stem works with C / 2.
        norm_cfg (dict): batch normalisation, as in mmcv.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        half = channels // 2
        # One flat Sequential: its indices 0 to 10 are names in the weights.
        self.proj = nn.Sequential(
            *conv_norm(in_channels, half, 2, norm_cfg),
            GELU2d(),
            *conv_norm(half, half, 1, norm_cfg),
            GELU2d(),
            *conv_norm(half, half, 1, norm_cfg),
            GELU2d(),
            *conv_norm(half, channels, 2, norm_cfg),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to (B, C, ceil(H / 4), ceil(W / 4))."""
        # In channels_last, heads are views and 1×1 convolutions run fastest.
        x = x.contiguous(memory_format=torch.channels_last)
        proj = [*self.proj]
        conv, norm = proj[:2]
        x = call_normalising(norm, conv(x))
        for i in (2, 5, 8):
            act, conv, norm = proj[i : i + 3]
            x = call_normalising(norm, call_recomputing_input(conv, act(x), act, x))
        return x

    def fold(self) -> nn.Sequential:
        """What computes the same in evaluation: convolutions and GELUs only."""
        proj: list[Any] = [*self.proj]
        layers: list[nn.Module] = [fold_batch_norm(*proj[:2])]
        for i in (2, 5, 8):
            act, conv, norm = proj[i : i + 3]
            layers += [copy.deepcopy(act), fold_batch_norm(conv, norm)]
        return nn.Sequential(*layers)


class Downsample(nn.Module):
    """3×3 convolution of stride 2 and batch normalisation, between two stages.

    Args:
        in_channels (int): channels of the stage before.
        out_channels (int): channels of the stage after.
        norm_cfg (dict): batch normalisation, as in mmcv.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.reduction, self.norm = conv_norm(in_channels, out_channels, 2, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2))."""
        return call_normalising(self.norm, self.reduction(x))

    def fold(self) -> nn.Sequential:
        """What computes the same in evaluation: one convolution."""
        return nn.Sequential(fold_batch_norm(self.reduction, self.norm))
