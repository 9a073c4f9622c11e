import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: in training, leave out a branch for some images of a batch.

    What stays is scaled, so that the mean over many draws is the input. See "Deep
    Networks with Stochastic Depth", Huang et al., https://arxiv.org/abs/1603.09382.

    Args:
        drop_prob (float): probability to leave the branch out, below 1.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """The branch's result (B, …), or zeros in its place."""
        if not self.training or self.drop_prob == 0:
            return x
        draws = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        keep = 1 - self.drop_prob
        return x / keep * (draws + keep).floor()
