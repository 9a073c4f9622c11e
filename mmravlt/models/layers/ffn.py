import copy
from functools import partial

from torch import Tensor, nn

from .folding import fold_layer_norm, fold_scale
from .fused_conv import ResidualConv, residual_conv, scaled_conv
from .gelu import GELU2d
from .norm import LayerNorm2d
from .recompute import call_recomputing_input


class FFN(nn.Module):
    """Feed-forward network with a depthwise 3×3 convolution inside.

    ``fc1 -> GELU -> h + dwconv(h) -> fc2``

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        hidden_channels (int): channels between the two 1×1 convolutions.
        with_cp (bool | str): what to recompute, see :class:`mmravlt.models.RAVLT`.
    """

    dwconv: nn.Module  # nn.Conv2d, or ResidualConv once folded

    def __init__(
        self, channels: int, hidden_channels: int, with_cp: bool | str = False
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.act = GELU2d()
        self.dwconv = nn.Conv2d(
            hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels
        )
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor, norm: nn.Module, gamma: Tensor) -> Tensor:
        """Compute ``gamma * ffn(norm(x))`` of a map (B, C, H, W).

        Args:
            x (Tensor): map, shape (B, C, H, W).
            norm (nn.Module): normalisation before the network.
            gamma (Tensor): layer scale, shape (1, C, 1, 1).

        Returns:
            Tensor: shape (B, C, H, W).
        """
        project = partial(scaled_conv, self.fc2, gamma)
        if self.with_cp is True:  # the whole block is recomputed
            return project(self._activate(self.fc1(norm(x))))
        x = call_recomputing_input(self.fc1, norm(x), norm, x)
        if self.with_cp == 'selective':
            return call_recomputing_input(project, self._activate(x), self._activate, x)
        return project(self._activate(x))

    def fold(self, norm: LayerNorm2d, gamma: Tensor) -> 'FFN':
        """A network for :meth:`forward_rows`, which takes the place of forward.

        Args:
            norm (LayerNorm2d): normalisation before the network; its weights are folded
                into the first convolution.
            gamma (Tensor): layer scale; it is folded into the last one.
        """
        folded = copy.deepcopy(self)
        folded.fc1 = fold_layer_norm(norm.norm, self.fc1)
        folded.dwconv = ResidualConv(self.dwconv)
        folded.fc2 = fold_scale(gamma, self.fc2)
        return folded

    def forward_rows(self, x: Tensor, norm: nn.Module, inner: slice) -> Tensor:
        """What :meth:`forward` computes, of some rows, once folded.

        Args:
            x (Tensor): the rows with one more on either side, (B, C, h, W).
            norm (nn.Module): normalisation without its weights.
            inner (slice): the rows among those of x.
        """
        # In one expression, so that no more than two wide maps exist at a time.
        hidden = residual_conv(self.dwconv, self.act(self.fc1(norm(x))))
        return self.fc2(hidden[:, :, inner])

    def _activate(self, x: Tensor) -> Tensor:
        mix = partial(residual_conv, self.dwconv)
        if self.with_cp is True:
            return mix(self.act(x))
        return call_recomputing_input(mix, self.act(x), self.act, x)


class MLP(nn.Module):
    """Two linear layers with GELU between them.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        hidden_channels (int): channels between the two.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = self.act(self.fc1(x.permute(0, 2, 3, 1)))
        return self.fc2(x).permute(0, 3, 1, 2)
