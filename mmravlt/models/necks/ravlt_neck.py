from collections.abc import Sequence

from torch import Tensor, nn

from mmravlt.models.base_module import BaseModule
from mmravlt.models.layers import (
    build_batch_norm,
    call_normalising,
    init_convolution,
)
from mmravlt.registry import register_model


@register_model
class RAVLTNeck(BaseModule):
    """What the release's classifier has between stage 4 and its linear head.

    ``1×1 convolution -> batch norm -> SiLU -> global average pooling``. The
    submodules are called ``proj`` and ``norm`` because the released weights are.

    Args:
        in_channels (int): channels of the last stage.
        out_channels (int): length of the vector that the head receives.
        norm_cfg (dict): batch normalisation, as in mmcv.
        init_cfg (dict | None): as in MMEngine.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1024,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006, C408 (read only)
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.proj = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = build_batch_norm(norm_cfg, out_channels)
        self.act = nn.SiLU()
        self.apply(init_convolution)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Turn the last of the backbone's maps into one vector per image.

        Args:
            maps (Sequence[Tensor]): maps; the last of shape (B, in_channels, H, W).

        Returns:
            tuple[Tensor]: one tensor of shape (B, out_channels).
        """
        x = self.act(call_normalising(self.norm, self.proj(maps[-1])))
        return (x.mean((2, 3)),)
