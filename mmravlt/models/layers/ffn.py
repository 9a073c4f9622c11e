from torch import Tensor, nn


class FFN(nn.Module):
    """Feed-forward network with a depthwise 3×3 convolution inside.

    ``fc1 -> GELU -> h + dwconv(h) -> fc2``

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        hidden_channels (int): channels between the two 1×1 convolutions.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.act = nn.GELU()
        self.dwconv = nn.Conv2d(
            hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels
        )
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = self.act(self.fc1(x))
        return self.fc2(x + self.dwconv(x))
