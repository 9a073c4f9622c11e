import torch
from torch import Tensor, nn

from mmravlt.ops.rope2d import is_compiling


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
            # The same as one formula, since its result is no view: of symbolic
            # sizes, PyTorch's compiler cannot return views.
            weight, bias = (p[:, None, None] for p in self.norm.parameters())
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, dim=1, correction=0, keepdim=True)
            normed = (wide - mean) * (variance + self.norm.eps).rsqrt() * weight + bias
            return normed.to(torch.promote_types(x.dtype, weight.dtype))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
