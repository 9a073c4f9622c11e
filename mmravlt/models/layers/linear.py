from torch import Tensor, nn


class ChannelLinear(nn.Linear):
    """A linear layer over the channels of a map.

    The same as a 1×1 convolution, but for the shape of the weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
