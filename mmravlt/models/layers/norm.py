from torch import Tensor, nn


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
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
