from torch import Tensor, nn

from mmravlt.ops.runtime import is_recording


class GELU2d(nn.GELU):
    """GELU of a map.

    On a CPU, PyTorch has oneDNN compute what is contiguous, which takes half the time.
    A map that is laid out as channels_last is contiguous with its channels last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if is_recording():
            return super().forward(x)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
