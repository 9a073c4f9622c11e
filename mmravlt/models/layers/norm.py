import copy

import torch
from torch import Tensor, nn

from mmravlt.ops.runtime import at_least_float32, is_compiling


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a map, eps 1e-6.

    The inner module is called ``norm`` because the released weights are.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if is_compiling():
            return _as_one_formula(self.norm, x)
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def without_affine(self) -> 'LayerNorm2d':
        """The same but for weight and bias, which are ones and zeros.

        Given none instead, PyTorch's takes up to eight times as long on a CPU.
        """
        plain = copy.deepcopy(self)
        plain.norm.reset_parameters()
        return plain


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map, eps 1e-5.

    Its weights have no prefix, as in the weights of L2ViT.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if is_compiling():
            return _as_one_formula(self, x)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _as_one_formula(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """The same, but the result is no view.

    Of symbolic sizes, PyTorch's compiler cannot return views.
    """
    weight, bias = (p[:, None, None] for p in norm.parameters())
    exact = at_least_float32(x)
    variance, mean = torch.var_mean(exact, dim=1, correction=0, keepdim=True)
    normed = (exact - mean) * (variance + norm.eps).rsqrt() * weight + bias
    return normed.to(torch.promote_types(x.dtype, weight.dtype))
