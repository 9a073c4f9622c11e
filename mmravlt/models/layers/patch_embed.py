from torch import Tensor, nn

from .batch_norm import call_normalising
from .gelu import GELU2d
from .norm_cfg import build_batch_norm
from .recompute import call_forgetting


def conv_norm(
    in_channels: int, out_channels: int, stride: int, norm_cfg: dict
) -> tuple[nn.Module, nn.Module]:
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
        conv, norm = self.proj[:2]
        x = call_normalising(norm, conv(x))
        for i in (2, 5, 8):
            act, conv, norm = self.proj[i : i + 3]
            x = call_normalising(norm, call_forgetting(conv, act(x), act, x))
        return x


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
