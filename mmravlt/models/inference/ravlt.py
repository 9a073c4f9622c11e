"""RAVLT rearranged for inference: the same function in less time and memory.

Two things change. What is linear is folded into the neighbouring convolution, once:
batch normalisation, the affine part of layer normalisation, layer scale, and the
residual connection around a depthwise convolution, which is one more of its middle
taps; each layer's ``fold`` does it. And a map that is too large for the memory budget
is worked on by chunks of rows, in place, so that little exists beside the map itself:
RALA then walks over the map three times, for the mean query, for the sums over keys and
values, and for the result.

The way through stages and blocks, and attention on a whole map, are RAVLT's own
methods. What is written anew here is a block in place and attention by rows.
"""

import copy
import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmravlt.models.backbones.ravlt import RAVLT, Block, Stage
from mmravlt.models.layers import (
    RALAttention,
    SoftmaxAttention,
    merge_heads,
    split_heads,
)
from mmravlt.models.layers.fused_conv import ResidualConv
from mmravlt.ops import rope2d_rotate
from mmravlt.ops.rala import add_keys, attend, kappa
from mmravlt.ops.rope2d import Rope
from mmravlt.ops.runtime import autocast_dtype, use_autocast

from .check import check_is_released
from .rows import ATTENTION, ROWS, Budget, ConvsByRows, empty_map, overwrite, with_halo


class RAVLTForInference(nn.Module):
    """Computes what a :class:`RAVLT` computes; it cannot be trained or saved.

    Args:
        backbone (RAVLT): with its weights loaded. It is left as it is.
        memory_budget (float | None): MiB that tensors beside the maps may take, for
            one image or, where images fit, several at a time. Two rows of the map, and
            for softmax attention the keys and values of all, are the least. None takes
            24 on a CPU and 1024 on a GPU.

    Raises:
        ValueError: if the budget is not a positive number, or the backbone is not as
            it was released, see :func:`.check.check_is_released`.
    """

    def __init__(self, backbone: RAVLT, memory_budget: float | None = None) -> None:
        super().__init__()
        self.budget = Budget(memory_budget)
        check_is_released(backbone, _BY_ROWS)
        self.out_indices = backbone.out_indices
        self.out_channels_last = backbone.out_channels_last
        with torch.no_grad():
            self.patch_embed = ConvsByRows(backbone.patch_embed.fold(), self.budget)
            self.layers = nn.ModuleList(
                _Stage(stage, self.budget) for stage in backbone.layers
            )
            self.extra_norms = nn.ModuleDict(
                {
                    i: _OutputNorm(norm, backbone.out_channels_last, self.budget)
                    for i, norm in backbone.extra_norms.items()
                }
            )
        self.requires_grad_(False)
        self.training = False

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the same maps as :meth:`RAVLT.forward`, without gradients.

        Args:
            x (Tensor): images, shape (B, in_channels, H, W).

        Returns:
            tuple[Tensor]: maps of shape (B, C_i, H_i, W_i), strides 4, 8, 16, 32.
        """
        ravlt: Any = self  # it has all that RAVLT.forward uses
        # As many images at a time as two rows of each fit.
        width = math.ceil(math.ceil(x.shape[3] / 2) / 2)
        channels = self.patch_embed.out_channels
        groups = self.budget.images(x, 2 * width * channels * ROWS)
        if len(groups) <= 1:
            return RAVLT.forward(ravlt, x)
        outputs: list[Tensor] = []
        for some in groups:
            maps = RAVLT.forward(ravlt, x[some])
            outputs = outputs or [
                _like(each, x.shape[0], self.out_channels_last) for each in maps
            ]
            for output, each in zip(outputs, maps, strict=True):
                output[some] = each
        return tuple(outputs)

    def lay_out(self, x: Tensor) -> Tensor:
        """The map itself: :class:`_OutputNorm` has laid it out already."""
        return x

    def train(self, mode: bool = True) -> 'RAVLTForInference':
        """Refuse training mode."""
        if mode:
            raise RuntimeError(
                'A RAVLT that was optimised for inference cannot be trained; build the '
                'model anew and load its weights.'
            )
        return super().train(False)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        # Exporters ask for the tensors themselves, and save none by these names.
        if not keep_vars:
            raise RuntimeError(
                'A RAVLT that was optimised for inference has no weights of its own to '
                'save; save the model before optimize_for_inference.'
            )
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args) -> None:
        raise RuntimeError(
            'A RAVLT that was optimised for inference takes no weights; load them '
            'before optimize_for_inference.'
        )


class _Stage(nn.Module):
    """A stage that works on its map in place, on so many images as attention takes."""

    def __init__(self, stage: Stage, budget: Budget) -> None:
        super().__init__()
        self.budget = budget
        self.with_cp = False
        self.RoPE = copy.deepcopy(stage.RoPE)
        self.blocks = nn.ModuleList(_Block(block, budget) for block in stage.blocks)
        if hasattr(stage, 'downsample'):
            self.downsample = ConvsByRows(stage.downsample.fold(), budget)

    def forward(self, x: Tensor) -> Tensor:
        """Overwrite a map (B, C, H, W) with the stage's result."""
        stage: Any = self  # it has all that Stage.forward uses
        if autocast_dtype(x.device.type):
            x = x.float()  # as layer scales make it in RAVLT
        groups = self.budget.images(x, math.prod(x.shape[1:]) * ATTENTION)
        if len(groups) <= 1:
            return Stage.forward(stage, x)
        for some in groups:
            x[some] = Stage.forward(stage, x[some])
        return x


class _OutputNorm(nn.Module):
    """An output norm by rows, into the layout that is returned."""

    def __init__(self, norm: nn.Module, channels_last: bool, budget: Budget) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)
        self.channels_last = channels_last
        self.budget = budget

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map (B, C, H, W), which nobody needs any more."""
        out = x if self.channels_last else _like(x, len(x), False)
        for chunk in self.budget.chunks(x):
            out[:, :, chunk] = self.norm(x[:, :, chunk])
        return out


class _Block(nn.Module):
    """A block that works on its map in place."""

    def __init__(self, block: Block, budget: Budget) -> None:
        super().__init__()
        self.budget = budget
        assert block.pos is not None  # which only an ablation lacks
        self.norm = block.norm1.without_affine()
        self.pos = ResidualConv(block.pos)
        self.attn = block.attn.fold(block.norm1, block.gamma_1)
        self.ffn = block.ffn.fold(block.norm2, block.gamma_2)
        self.attend_by_rows = _BY_ROWS[type(block.attn)]

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """Overwrite a map (B, C, H, W) with the block's result, and return it."""
        if len(self.budget.chunks(x, ATTENTION)) == 1:
            x.copy_(self.pos(x))
            x += self.attn(x, rope, self.norm, None)
        else:
            self.attend_by_rows(self, x, rope)

        def ffn(rows: Tensor, inner: slice, _: slice) -> Tensor:
            return rows[:, :, inner] + self.ffn.forward_rows(rows, self.norm, inner)

        overwrite(x, self.budget.chunks(x), 1, ffn)
        return x


def _rala_by_rows(block: _Block, x: Tensor, rope: Rope) -> None:
    """Add position and RALA to a map, in place."""
    attn, norm, (rows_rope, columns) = block.attn, block.norm, rope
    chunks, heads = block.budget.chunks(x), attn.num_heads
    queries: list[Tensor] = []  # sums over the chunks' tokens
    sums = None

    def pos(rows: Tensor, inner: slice, _: slice) -> Tensor:
        rows = block.pos(rows)[:, :, inner]
        (q,) = attn.project_rows(norm(rows), 0, 1)
        queries.append(kappa(split_heads(q, heads)).sum(dim=-2, keepdim=True))
        return rows

    overwrite(x, chunks, 1, pos)
    global_query = reduce(torch.add, queries) / (x.shape[2] * x.shape[3])
    for chunk in chunks:
        k, v = attn.project_rows(norm(x[:, :, chunk]), 1, 3)
        k, v = split_heads(k, heads), split_heads(v, heads)
        with use_autocast(x.device.type, None):
            sums = add_keys(sums, k, v, global_query, (rows_rope[chunk], columns))
    assert sums is not None  # a map has a row

    def attend_to_all(rows: Tensor, inner: slice, chunk: slice) -> Tensor:
        normed = norm(rows)
        (v,) = attn.project_rows(normed, 2, 3)
        (q,) = attn.project_rows(normed[:, :, inner], 0, 1)
        (gate,) = attn.project_rows(normed[:, :, inner], 3, 4)
        with use_autocast(x.device.type, None):
            mixed = attend(split_heads(q, heads), sums, (rows_rope[chunk], columns))
        return rows[:, :, inner] + attn.finish_rows(mixed, v, gate, inner)

    overwrite(x, chunks, 2, attend_to_all)


def _softmax_by_rows(block: _Block, x: Tensor, rope: Rope) -> None:
    """Add position and softmax attention to a map, in place."""
    attn, norm, (rows_rope, columns) = block.attn, block.norm, rope
    chunks, heads = block.budget.chunks(x), attn.num_heads
    dtype = autocast_dtype(x.device.type) or x.dtype
    keys, values = (empty_map(x, x.shape, dtype) for _ in 'kv')

    def pos(rows: Tensor, inner: slice, chunk: slice) -> Tensor:
        rows = block.pos(rows)[:, :, inner]
        k, values[:, :, chunk] = attn.project_rows(norm(rows), 1, 3)
        k = rope2d_rotate(split_heads(k, heads), (rows_rope[chunk], columns))
        keys[:, :, chunk] = merge_heads(k, rows.shape[2:])
        return rows

    overwrite(x, chunks, 1, pos)
    k, v = split_heads(keys, heads), split_heads(values, heads)
    for chunk in chunks:
        normed = norm(x[:, :, chunk])
        (q,) = attn.project_rows(normed, 0, 1)
        (gate,) = attn.project_rows(normed, 3, 4)
        q = rope2d_rotate(split_heads(q, heads), (rows_rope[chunk], columns))
        mixed = F.scaled_dot_product_attention(q, k, v)
        around, inner = with_halo(chunk, 2)
        x[:, :, chunk] += attn.finish_rows(mixed, values[:, :, around], gate, inner)


#: How each kind of attention that is known here works by rows. A subclass is not known.
_BY_ROWS = {RALAttention: _rala_by_rows, SoftmaxAttention: _softmax_by_rows}


def _like(x: Tensor, batch: int, channels_last: bool) -> Tensor:
    """An empty batch of maps of this size."""
    shape = (batch, *x.shape[1:])
    return empty_map(x, shape) if channels_last else x.new_empty(shape)
