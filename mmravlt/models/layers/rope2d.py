import torch
from torch import nn

from mmravlt.ops import rope2d_angles, rope2d_table
from mmravlt.ops.rope2d import Rope


class RoPE2d(nn.Module):
    """Cosines and sines that rotate a stage's tokens; it owns no parameter.

    The release saves its frequencies as a buffer ``angle``. They follow from
    ``head_dim``, so here they are neither kept nor saved; a state dict that
    holds them loads cleanly if they are the ones this model uses.

    Args:
        head_dim (int): channels of one attention head, a multiple of 4.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(
        self,
        height: int,
        width: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Rope:
        """Cosines and sines of a map's rows and columns, see :func:`rope2d_table`."""
        return rope2d_table(height, width, self.head_dim, device, dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        stored = state_dict.get(prefix + 'angle')
        if stored is None:
            return
        expected = rope2d_angles(self.head_dim, stored.device).to(stored.dtype)
        if stored.shape != expected.shape or not torch.allclose(
            stored.float(), expected.float(), rtol=1e-5, atol=0
        ):
            # Raised, not reported: non-strict loading would only log it, and
            # every attention of the stage would be silently wrong.
            raise RuntimeError(
                f"'{prefix}angle' in the checkpoint holds other RoPE frequencies "
                f'than 10000 ** -linspace(0, 1, {self.head_dim // 4}), so its weights '
                'belong to another model; load weights trained with RAVLT.'
            )
