"""RAVLT rearranged for inference: the same function in less time and memory.

Two things change. What is linear is folded into the neighbouring convolution, once:
batch normalisation, the affine part of layer normalisation, layer scale, and the
residual connection around a depthwise convolution, which is one more of its middle
taps. And a map that is too large for the memory budget is worked on by groups of
rows, in place, so that little exists beside the map itself: RALA then walks over the
map three times, for the mean query, for the sums over keys and values, and for the
result.
"""

import copy
import math
from collections.abc import Callable
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmravlt.models.layers import (
    RALAttention,
    SoftmaxAttention,
    merge_heads,
    split_heads,
)
from mmravlt.models.layers.fused_conv import is_exact, is_plain
from mmravlt.ops import rala, rope2d_rotate, rope2d_table
from mmravlt.ops.rala import add_keys, attend, kappa
from mmravlt.ops.rope2d import Table
from mmravlt.ops.runtime import autocast_dtype, use_autocast

from .ravlt import RAVLT, Block

# What exists beside the map, in channels of it: while attention works on the whole map,
# its keys, values, queries, gate, result and the normalised map; while a block works on
# some rows, the FFN's hidden maps of ratio 3.5, before and after GELU, and some more.
_ATTENTION = 6
_ROWS = 10
# Convolutions of a block whose weights are taken or changed.
_FOLDED = (
    *('pos', 'attn.qkvo', 'attn.lepe', 'attn.proj'),
    *('ffn.fc1', 'ffn.dwconv', 'ffn.fc2'),
)
#: MiB. On a CPU, more than its cache holds is slower; a GPU likes many rows at a time.
DEFAULT_MEMORY_BUDGET = {'cpu': 24, 'cuda': 1024}


class RAVLTForInference(nn.Module):
    """Computes what a :class:`RAVLT` computes; it cannot be trained or saved.

    Args:
        backbone (RAVLT): with its weights loaded. It is left as it is.
        memory_budget (float | None): MiB that tensors beside the maps may take, for
            one image or, where images fit, several at a time. Two rows of the map, and
            for softmax attention the keys and values of all, are the least. None takes
            24 on a CPU and 1024 on a GPU.

    Raises:
        ValueError: if the budget is not a positive number, or the backbone was changed
            so that folding would lose something, or is built as an ablation.
    """

    def __init__(self, backbone: RAVLT, memory_budget: float | None = None) -> None:
        super().__init__()
        is_number = isinstance(memory_budget, Real) and memory_budget is not True
        is_size = is_number and 0 < memory_budget < math.inf
        if memory_budget is not None and not is_size:
            raise ValueError(
                f'memory_budget is {memory_budget!r}; give a number of MiB above 0, or '
                'None.'
            )
        if type(backbone).forward is not RAVLT.forward:
            raise ValueError(
                f'optimize_for_inference knows the forward method of RAVLT, but '
                f'{type(backbone).__name__} has its own; leave it out for this model.'
            )
        if backbone.ablation:
            options = ', '.join(f'{n}={v!r}' for n, v in backbone.ablation.items())
            raise ValueError(
                f'optimize_for_inference knows RAVLT as it was released, not with '
                f'{options}; leave it out for this model.'
            )
        self.memory_budget = memory_budget
        self.out_indices = backbone.out_indices
        self.out_channels_last = backbone.out_channels_last
        stem = backbone.patch_embed.proj
        with torch.no_grad():
            self.stem = nn.ModuleList(
                _fold_batch_norm(stem[i], stem[i + 1]) for i in (0, 3, 6, 9)
            )
            self.act = copy.deepcopy(stem[2])
            self.stages = nn.ModuleList()
            for stage in backbone.layers:
                folded = nn.Module()
                folded.blocks = nn.ModuleList(map(_FoldedBlock, stage.blocks))
                if hasattr(stage, 'downsample'):
                    folded.downsample = _fold_batch_norm(
                        stage.downsample.reduction, stage.downsample.norm
                    )
                self.stages.append(folded)
            self.output_norms = nn.ModuleDict()
            for i, norm in backbone.extra_norms.items():
                self.output_norms[i] = nn.Identity()
                if not isinstance(norm, nn.Identity):
                    self.output_norms[i] = copy.deepcopy(norm.norm)
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
        budget = self.memory_budget or DEFAULT_MEMORY_BUDGET.get(x.device.type, 24)
        budget = int(budget * 2**20)
        # As many images at a time as two rows of each fit.
        width = math.ceil(math.ceil(x.shape[3] / 2) / 2)
        rows = 2 * width * self.stem[-1].out_channels * _ROWS * x.dtype.itemsize
        count = min(max(budget // rows, 1), x.shape[0])
        if count == x.shape[0]:
            return tuple(self._run(x, budget))
        outputs = None
        for start in range(0, x.shape[0], count):
            part = self._run(x[start : start + count], budget)
            if outputs is None:
                outputs = [self._empty_output(out, x.shape[0]) for out in part]
            for output, out in zip(outputs, part, strict=True):
                output[start : start + count] = out
        return tuple(outputs)

    def _run(self, images: Tensor, budget: int) -> list[Tensor]:
        outputs = []
        x = self._embed(images, budget)
        for i, stage in enumerate(self.stages):
            if autocast_dtype(x.device.type):
                x = x.float()  # as layer scales make it in RAVLT
            for some in _images(x, budget):
                for block in stage.blocks:
                    block(x[some], budget)
            below = None
            if hasattr(stage, 'downsample'):
                below = _downsample(stage.downsample, x, budget)
            if i in self.out_indices:
                norm = self.output_norms[str(i)]
                # The map itself is in channels_last, and needed no more.
                out = x if self.out_channels_last else self._empty_output(x, len(x))
                for part in _parts(x, budget):
                    rows = x[:, :, part].permute(0, 2, 3, 1)
                    out[:, :, part] = norm(rows).permute(0, 3, 1, 2)
                outputs.append(out)
            x = below
        return outputs

    def _empty_output(self, like: Tensor, batch: int) -> Tensor:
        if self.out_channels_last:
            return _empty_map(like, batch, *like.shape[1:])
        return like.new_empty(batch, *like.shape[1:])

    def _embed(self, images: Tensor, budget: int) -> Tensor:
        """Patch embedding, by rows of its result."""
        heights = [images.shape[2]]
        for conv in self.stem:
            heights.append(math.ceil(heights[-1] / conv.stride[0]))
        width = math.ceil(math.ceil(images.shape[3] / 2) / 2)

        def rows(layer: int, start: int, stop: int) -> Tensor:
            """Rows of a layer's result; those outside of the map are zero."""
            a, b = max(start, 0), min(stop, heights[layer])
            if layer == 0:
                y = images[:, :, a:b].contiguous(memory_format=torch.channels_last)
            else:
                conv = self.stem[layer - 1]
                step = conv.stride[0]
                y = rows(layer - 1, a * step - 1, (b - 1) * step + 2)
                y = _conv_rows(conv, y)
                if layer < len(self.stem):
                    y = self.act(y)
            return F.pad(y, (0, 0, a - start, stop - b)) if b - a < stop - start else y

        def embed(part: slice) -> Tensor:
            return rows(len(self.stem), part.start, part.stop)

        channels = self.stem[-1].out_channels
        return _by_rows(embed, images, (channels, heights[-1], width), budget)

    def train(self, mode: bool = True) -> 'RAVLTForInference':
        """Refuse training mode."""
        if mode:
            raise RuntimeError(
                'A RAVLT that was optimised for inference cannot be trained; build the '
                'model anew and load its weights.'
            )
        return super().train(False)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        raise RuntimeError(
            'A RAVLT that was optimised for inference has no weights of its own to '
            'save; save the model before optimize_for_inference.'
        )

    def _load_from_state_dict(self, *args) -> None:
        raise RuntimeError(
            'A RAVLT that was optimised for inference takes no weights; load them '
            'before optimize_for_inference.'
        )


class _FoldedBlock(nn.Module):
    """A block with its normalisations, scales and identities folded in."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention = block.attn
        if type(attention) not in (RALAttention, SoftmaxAttention):
            raise ValueError(
                f'optimize_for_inference knows "rala" and "softmax" attention, not '
                f'{type(attention).__name__}; leave it out for this model.'
            )
        for name in _FOLDED:
            if not is_plain(block.get_submodule(name)):
                raise ValueError(
                    f'optimize_for_inference would lose what was added to {name} of a '
                    'block; merge it into the weights (after pruning with '
                    'torch.nn.utils.prune.remove), or leave it out for this model.'
                )
        self.is_rala = type(attention) is RALAttention
        self.num_heads = attention.num_heads
        # Both norms without their affine part. Given no weights instead of ones and
        # zeros, PyTorch's takes up to eight times as long on a CPU.
        self.norm = copy.deepcopy(block.norm1)
        self.norm.norm.reset_parameters()
        self.pos = _ResidualConv(block.pos)
        weight, bias = _fold_layer_norm(block.norm1.norm, attention.qkvo)
        # k and v first, then q and the gate: so they are computed in pairs.
        order = (1, 2, 0, 3)
        self.kvqo = _conv(
            torch.cat([weight.chunk(4)[i] for i in order]),
            torch.cat([bias.chunk(4)[i] for i in order]),
        )
        self.lepe = copy.deepcopy(attention.lepe)
        self.proj = _fold_scale(block.gamma_1, attention.proj)
        self.fc1 = _conv(*_fold_layer_norm(block.norm2.norm, block.ffn.fc1))
        self.act = copy.deepcopy(block.ffn.act)
        self.dwconv = _ResidualConv(block.ffn.dwconv)
        self.fc2 = _fold_scale(block.gamma_2, block.ffn.fc2)

    def forward(self, x: Tensor, budget: int) -> None:
        """Overwrite a map (B, C, H, W) with the block's result."""
        head_dim = x.shape[1] // self.num_heads
        table = rope2d_table(*x.shape[2:], head_dim, x.device, x.dtype)
        if len(_parts(x, budget, _ATTENTION)) == 1:
            x.copy_(self.pos(x))
            x += self._attend(x, table)
        elif self.is_rala:
            self._rala(x, table, budget)
        else:
            self._softmax(x, table, budget)

        def ffn(rows: Tensor, inner: slice, _: slice) -> Tensor:
            hidden = self.dwconv(self.act(self.fc1(self.norm(rows))))
            return rows[:, :, inner] + self.fc2(hidden[:, :, inner])

        _overwrite(x, _parts(x, budget), 1, ffn)

    def _attend(self, x: Tensor, table: Table) -> Tensor:
        k, v, q, gate = self.kvqo(self.norm(x)).chunk(4, dim=1)
        q, k, v_heads = (split_heads(each, self.num_heads) for each in (q, k, v))
        if self.is_rala:
            mixed = rala(q, k, v_heads, table)
        else:
            q, k = rope2d_rotate(q, table), rope2d_rotate(k, table)
            mixed = F.scaled_dot_product_attention(q, k, v_heads)
        mixed = merge_heads(mixed, x.shape[2:])
        return self.proj(self.lepe(v).add_(mixed).mul_(gate))

    def _rala(self, x: Tensor, table: Table, budget: int) -> None:
        channels, (rows_table, columns) = x.shape[1], table
        parts = _parts(x, budget)
        total, sums = 0, None

        def pos(rows: Tensor, inner: slice, _: slice) -> Tensor:
            nonlocal total
            rows = self.pos(rows)[:, :, inner]
            (q,) = self._project(rows, 2 * channels, 3 * channels)
            total = total + kappa(q).sum(dim=-2, keepdim=True)
            return rows

        _overwrite(x, parts, 1, pos)
        global_query = total / (x.shape[2] * x.shape[3])
        for part in parts:
            k, v = self._project(x[:, :, part], 0, 2 * channels)
            with use_autocast(x.device.type, None):
                sums = add_keys(sums, k, v, global_query, (rows_table[part], columns))

        def attend_to_all(rows: Tensor, inner: slice, part: slice) -> Tensor:
            normed = self.norm(rows)
            v = self.lepe(_conv_slice(self.kvqo, normed, channels, 2 * channels))
            made = _conv_slice(self.kvqo, normed[:, :, inner], 2 * channels)
            q, gate = made.chunk(2, dim=1)
            q = split_heads(q, self.num_heads)
            with use_autocast(x.device.type, None):
                mixed = attend(q, sums, (rows_table[part], columns))
            mixed = merge_heads(mixed, gate.shape[2:])
            mixed = v[:, :, inner].add_(mixed).mul_(gate)
            return rows[:, :, inner] + self.proj(mixed)

        _overwrite(x, parts, 2, attend_to_all)

    def _softmax(self, x: Tensor, table: Table, budget: int) -> None:
        channels, (rows_table, columns) = x.shape[1], table
        parts = _parts(x, budget)
        made = autocast_dtype(x.device.type) or x.dtype
        keys, values = (_empty_map(x, *x.shape, dtype=made) for _ in 'kv')

        def pos(rows: Tensor, inner: slice, part: slice) -> Tensor:
            rows = self.pos(rows)[:, :, inner]
            k, v = _conv_slice(self.kvqo, self.norm(rows), 0, 2 * channels).chunk(2, 1)
            k = split_heads(k, self.num_heads)
            k = rope2d_rotate(k, (rows_table[part], columns))
            keys[:, :, part] = merge_heads(k, rows.shape[2:])
            values[:, :, part] = v
            return rows

        _overwrite(x, parts, 1, pos)
        k, v_heads = (split_heads(each, self.num_heads) for each in (keys, values))
        for part in parts:
            rows = self.norm(x[:, :, part])
            q, gate = _conv_slice(self.kvqo, rows, 2 * channels).chunk(2, dim=1)
            q = split_heads(q, self.num_heads)
            q = rope2d_rotate(q, (rows_table[part], columns))
            mixed = F.scaled_dot_product_attention(q, k, v_heads)
            mixed = merge_heads(mixed, rows.shape[2:])
            around, inner = _with_halo(part, 2)
            v = self.lepe(values[:, :, around])[:, :, inner]
            x[:, :, part] += self.proj(v.add_(mixed).mul_(gate))

    def _project(self, x: Tensor, start: int, stop: int) -> list[Tensor]:
        """Some of keys, values and queries, each (B, heads, n, d)."""
        made = _conv_slice(self.kvqo, self.norm(x), start, stop)
        each = made.chunk(made.shape[1] // x.shape[1], dim=1)
        return [split_heads(y, self.num_heads) for y in each]


class _ResidualConv(nn.Module):
    """``x + conv(x)`` of a depthwise convolution, as one convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv)
        identity = torch.zeros_like(conv.weight[:1])
        identity[..., identity.shape[2] // 2, identity.shape[3] // 2] = 1
        self.folded = copy.deepcopy(conv)
        self.folded.weight += identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.folded(x) if is_exact(x) else x + self.conv(x)


def _conv(weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    out_channels, in_channels, size, _ = weight.shape
    with torch.device('meta'):
        conv = nn.Conv2d(in_channels, out_channels, size, stride, padding)
    weight = weight.contiguous(memory_format=torch.channels_last)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def _fold_batch_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    weight, bias = fuse_conv_bn_weights(
        *(conv.weight, conv.bias, norm.running_mean, norm.running_var),
        *(norm.eps, norm.weight, norm.bias),
    )
    return _conv(weight, bias, conv.stride[0], conv.padding[0])


def _fold_layer_norm(norm: nn.LayerNorm, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 1×1 convolution of what is normalised only."""
    bias = conv.bias + conv.weight.flatten(1) @ norm.bias
    return conv.weight * norm.weight[:, None, None], bias


def _fold_scale(gamma: Tensor, conv: nn.Conv2d) -> nn.Conv2d:
    scale = gamma.flatten()
    return _conv(conv.weight * scale[:, None, None, None], conv.bias * scale)


def _conv_slice(
    conv: nn.Conv2d, x: Tensor, start: int, stop: int | None = None
) -> Tensor:
    """Some output channels of a 1×1 convolution."""
    return F.conv2d(x, conv.weight[start:stop], conv.bias[start:stop])


def _conv_rows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of rows that bring their halo; only columns are padded."""
    padding = (0, conv.padding[1])
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, 1, conv.groups)


def _parts(x: Tensor, budget: int, temporaries: int = _ROWS) -> list[slice]:
    """Groups of rows, as even as possible, whose temporaries fit the budget.

    All have at least two rows, as many as a depthwise convolution reaches, unless the
    map has only one.
    """
    batch, channels, height, width = x.shape
    row = batch * width * channels * temporaries * x.dtype.itemsize
    count = min(math.ceil(height / max(1, budget // max(1, row))), max(1, height // 2))
    bounds = [height * i // count for i in range(count + 1)]
    return [slice(*ends) for ends in zip(bounds[:-1], bounds[1:], strict=True)]


def _images(x: Tensor, budget: int) -> list[slice]:
    """Groups of images whose whole maps attention can work on within the budget."""
    each = math.prod(x.shape[1:]) * _ATTENTION * x.dtype.itemsize
    count = max(1, budget // max(1, each))
    return [slice(i, i + count) for i in range(0, x.shape[0], count)]


def _with_halo(part: slice, halo: int) -> tuple[slice, slice]:
    """Rows of a map with those around them, and where these rows are therein."""
    first = max(part.start - halo, 0)
    return slice(first, part.stop + halo), slice(part.start - first, part.stop - first)


def _overwrite(
    x: Tensor,
    parts: list[slice],
    halo: int,
    compute: Callable[[Tensor, slice, slice], Tensor],
) -> None:
    """Compute a map anew from itself, in place, by groups of rows.

    Args:
        x (Tensor): map, shape (B, C, H, W).
        parts (list[slice]): the groups.
        halo (int): how many of the rows on either side a group is computed from.
        compute (Callable): new rows from old ones, which bring their halo, from where
            the rows are therein, and from where they are in the map.
    """
    late = None  # new rows whose old ones the next group still needs
    for part in parts:
        around, inner = _with_halo(part, halo)
        new = compute(x[:, :, around], inner, part)
        if late is not None:
            x[:, :, part.start - halo : part.start] = late
        ready = part.stop - (halo if part.stop < x.shape[2] else 0)
        x[:, :, part.start : ready] = new[:, :, : ready - part.start]
        late = new[:, :, ready - part.start :].clone()


def _downsample(conv: nn.Conv2d, x: Tensor, budget: int) -> Tensor:
    height, width = (math.ceil(side / 2) for side in x.shape[2:])

    def rows(part: slice) -> Tensor:
        start, stop = part.start, part.stop
        first, last = 2 * start - 1, 2 * stop
        a, b = max(first, 0), min(last, x.shape[2])
        y = x[:, :, a:b]
        if last - first > b - a:
            y = F.pad(y, (0, 0, a - first, last - b))
        return _conv_rows(conv, y)

    return _by_rows(rows, x, (conv.out_channels, height, width), budget)


def _by_rows(
    compute: Callable[[slice], Tensor],
    x: Tensor,
    shape: tuple[int, int, int],
    budget: int,
) -> Tensor:
    """Put a map of ``shape`` (C, H, W) together from computed groups of rows."""
    parts = _parts(x.new_empty((x.shape[0], *shape), device='meta'), budget)
    result = None
    for part in parts:
        rows = compute(part)
        if len(parts) == 1:
            return rows
        if result is None:
            result = _empty_map(rows, x.shape[0], *shape)
        result[:, :, part] = rows
    return result


def _empty_map(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        shape,
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )
