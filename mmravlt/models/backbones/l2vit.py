"""L2ViT, a vision transformer of linear global and local window attention.

Paper: "The Linear Attention Resurrection in Vision Transformer" (where the model is
called L²ViT), Zheng, 2025, https://arxiv.org/abs/2501.16182. Author's code and
weights: https://github.com/ChuanyangZheng/L2ViT. This is an independent
implementation, licensed under Apache-2.0, that computes what the release computes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmravlt.models.layers import (
    MLP,
    ChannelLayerNorm,
    DropPath,
    GELU2d,
    build_batch_norm,
    call_normalising,
    call_recomputing,
    conv_norm,
    from_windows,
    init_convolution,
    init_linear,
    merge_heads,
    pad_to_multiple,
    residual_conv,
    split_heads,
    to_windows,
    wide_depthwise_conv,
)
from mmravlt.ops import l2vit_attention
from mmravlt.ops.linear_attention import kv_buffer, relu_features
from mmravlt.registry import register_model

from .base import Backbone, is_int

PATCH = 4  # pixels of the image in one of the first stage, per side


class _Attention(nn.Module):
    """What both kinds of attention have in common; a kind has its own :meth:`mix`.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): heads; each works on C / heads neighbouring channels.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix tokens; all tensors have shape (B, heads, N, d)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        qkv = self.qkv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        q_k_v = (split_heads(each, self.num_heads) for each in qkv.chunk(3, dim=1))
        mixed = merge_heads(self.mix(*q_k_v), (x.shape[2], x.shape[3]))
        return self.proj(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LinearAttention(_Attention):
    """Linear attention of all tokens, see :func:`mmravlt.ops.l2vit_attention`."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__(channels, num_heads)
        scale = (channels // num_heads) ** -0.5
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), scale))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2vit_attention(q, k, v, self.temperature)

    @property
    def first_conv(self) -> nn.Module:
        """The layer from (B, H, W, C) to queries, keys and values."""
        return self.qkv

    def kv_buffer(self, q: Tensor, k: Tensor, v: Tensor, rope: None = None) -> Tensor:
        """What ReLUs of queries are multiplied with, (B, heads, d, d)."""
        return kv_buffer(relu_features(q, k)[1], v)


class WindowAttention(_Attention):
    """Softmax attention within square windows.

    A map that does not divide into windows is padded with zeros, right and bottom,
    which take part in the attention.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): heads; each works on C / heads neighbouring channels.
        window_size (int): tokens on each side of a window.
    """

    def __init__(self, channels: int, num_heads: int, window_size: int) -> None:
        super().__init__(channels, num_heads)
        self.window_size = window_size

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        x = pad_to_multiple(x, self.window_size)
        windows = super().forward(to_windows(x, self.window_size))
        return from_windows(windows, x.shape[2:])[:, :, :height, :width]


class LocalConcentration(nn.Module):
    """The local concentration module: it gathers what is near after linear attention.

    ``depthwise 7×7 -> GELU -> batch norm -> depthwise 7×7``

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        norm_cfg (dict): batch normalisation, as in mmcv.
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv1 = _depthwise(channels, 7)
        self.act = GELU2d()
        self.bn = build_batch_norm(norm_cfg, channels)
        self.conv2 = _depthwise(channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = self.act(wide_depthwise_conv(self.conv1, x))
        x = call_normalising(self.bn, x)
        return wide_depthwise_conv(self.conv2, x)


class Block(nn.Module):
    """One transformer block, local or global.

    ::

        local   x -> + dw 3x3 -> + windows(norm1) -> + dw 3x3 -> + mlp(norm2) ->
        global  x -> + dw 3x3 -> + linear(norm1) -> + local_mp(norm3) -> + mlp(norm2) ->

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): attention heads.
        is_global (bool): linear attention and local concentration, not windows.
        window_size (int): tokens on each side of a window.
        drop_path_rate (float): probability to drop any branch in training.
        norm_cfg (dict): batch normalisation in the local concentration.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        is_global: bool,
        window_size: int,
        drop_path_rate: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.is_global = is_global
        # The released weights have their convolutions under cpe.0.proj, cpe.1.proj.
        self.cpe = nn.ModuleList(
            _under_proj(_depthwise(channels, 3)) for _ in range(1 if is_global else 2)
        )
        self.norm1 = ChannelLayerNorm(channels)
        self.attn: _Attention
        if is_global:
            self.attn = LinearAttention(channels, num_heads)
            self.norm3 = ChannelLayerNorm(channels)
            self.local_mp = LocalConcentration(channels, norm_cfg)
        else:
            self.attn = WindowAttention(channels, num_heads, window_size)
        self.norm2 = ChannelLayerNorm(channels)
        self.mlp = MLP(channels, 4 * channels)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = residual_conv(self.cpe[0].get_submodule('proj'), x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        if self.is_global:
            x = x + self.drop_path(self.local_mp(self.norm3(x)))
        else:
            x = residual_conv(self.cpe[1].get_submodule('proj'), x)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """Two 3×3 convolutions of stride 2, and normalisation.

    Args:
        in_channels (int): channels of the image.
        channels (int): C of the first stage.
        norm_cfg (dict): batch normalisation after each convolution.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        half = channels // 2
        convolutions = nn.Sequential(
            *conv_norm(in_channels, half, 2, norm_cfg),
            nn.ReLU(),
            *conv_norm(half, channels, 2, norm_cfg),
        )
        self.proj = _under_proj(convolutions)
        self.norm = ChannelLayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to (B, C, ceil(H / 4), ceil(W / 4))."""
        return self.norm(call_normalising(self.proj, pad_to_multiple(x, PATCH)))


class Downsample(nn.Module):
    """Normalisation and 2×2 convolution of stride 2, between two stages.

    Args:
        in_channels (int): channels of the stage before.
        out_channels (int): channels of the stage after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(in_channels)
        self.proj = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2))."""
        return self.proj(pad_to_multiple(self.norm(x), 2))


@register_model
class L2ViT(Backbone):
    """L2ViT backbone.

    ::

        image  B x 3 x H x W
          |    downsample_layers.0, stride 4
          +-- stages.0: local, global, … -> norm0 -> B x C1 x H/4  x W/4
          |    downsample_layers.1
          +-- stages.1: local, global, … -> norm1 -> B x C2 x H/8  x W/8
          |    downsample_layers.2
          +-- stages.2: local, global, … -> norm2 -> B x C3 x H/16 x W/16
          |    downsample_layers.3
          +-- stages.3: local, global, … -> norm3 -> B x C4 x H/32 x W/32

    Any size of at least 1×1 works; a side that does not divide rounds up at each
    stride. Stages after the last of ``out_indices`` are not built. ``torch.export``
    takes one size at a time, because windows cut each map by its size.

    Args:
        arch (str | dict): 't', 's', 'b', or a dict with ``embed_dims``, ``depths``
            and ``num_heads`` (four values each) and, if wanted, ``drop_path_rate``
            (default 0).
        out_indices (Sequence[int]): stages whose maps are returned.
        output_norm (bool): normalise each returned map (``norm0`` to ``norm3``). The
            released classifier does so too, with ``norm``, which is here ``norm3``.
        window_size (int): tokens on each side of a window. The weights released for
            images of 384×384 were trained with 12; names and shapes do not tell.
        in_channels (int): channels of the image.
        drop_path_rate (float | None): stochastic depth of the last block; the
            others grow linearly from 0. None takes the variant's own.
        frozen_stages (int): -1 freezes nothing, 0 the patch embedding, n > 0 also
            the first n stages with the downsampling and output norms after them: no
            gradient, batch statistics fixed, no stochastic depth.
        norm_cfg (dict): batch normalisation in patch embedding and local
            concentration, ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        norm_eval (bool): keep all batch statistics fixed in training.
        with_cp (bool): recompute blocks in the backward pass to save memory.
        out_channels_last (bool): return maps in PyTorch's memory format channels_last,
            which saves copying them. Convolutions take it as well, and other layers
            that do not call ``view`` on a map. By default maps are contiguous.
        init_cfg (dict | None): as in MMEngine; ``dict(type='Pretrained',
            checkpoint=…)`` takes any L2ViT weights of this size: a backbone's, or
            those of the backbone in a classifier, detector or segmentor.

    Raises:
        ValueError: if an argument has a value that no model can be built of.
    """

    # Sizes of the release. Drop path on ImageNet: its run script names that of B;
    # those of T and S are chosen here, between B's and Swin's.
    # fmt: off
    arch_zoo = {
        't': dict(embed_dims=(96, 192, 384, 768), depths=(2, 2, 6, 2),
                  num_heads=(3, 6, 12, 24), drop_path_rate=0.1),
        's': dict(embed_dims=(96, 192, 384, 768), depths=(2, 2, 18, 2),
                  num_heads=(3, 6, 12, 24), drop_path_rate=0.2),
        'b': dict(embed_dims=(128, 256, 512, 1024), depths=(2, 2, 18, 2),
                  num_heads=(4, 8, 16, 32), drop_path_rate=0.3),
    }
    # fmt: on

    def __init__(
        self,
        arch: str | dict = 't',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_norm: bool = True,
        window_size: int = 7,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006, C408 (read only)
        norm_eval: bool = False,
        with_cp: bool = False,
        out_channels_last: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            arch=arch,
            out_indices=out_indices,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            with_cp=with_cp,
            out_channels_last=out_channels_last,
            init_cfg=init_cfg,
        )
        if not is_int(window_size) or window_size < 1:
            raise ValueError(
                f'window_size is {window_size!r}; give a whole number from 1.'
            )
        self.with_cp = with_cp
        dims = self.settings['embed_dims']
        self.downsample_layers = nn.ModuleList([Stem(in_channels, dims[0], norm_cfg)])
        self.downsample_layers.extend(
            Downsample(dims[i - 1], dims[i]) for i in range(1, self.num_stages)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(
                    dims[i],
                    self.settings['num_heads'][i],
                    j % 2 == 1,
                    window_size,
                    rate,
                    norm_cfg,
                )
                for j, rate in enumerate(rates)
            )
            for i, rates in enumerate(self.drop_path_rates)
        )
        for i in self.out_indices:
            norm = ChannelLayerNorm(dims[i]) if output_norm else nn.Identity()
            self.add_module(f'norm{i}', norm)
        self.apply(init_convolution)
        self.apply(init_linear)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.forward`."""
        outputs = []
        # In channels_last, heads and windows are views and linear layers run fastest.
        x = x.contiguous(memory_format=torch.channels_last)
        stages = zip(self.downsample_layers, self.stages, strict=True)
        for i, (downsample, blocks) in enumerate(stages):
            x = downsample(x)
            for block in blocks.children():
                x = call_recomputing(block, x) if self.with_cp else block(x)
            if i in self.out_indices:
                outputs.append(self.lay_out(self.get_submodule(f'norm{i}')(x)))
        return tuple(outputs)

    def frozen_parts(self) -> Iterable[nn.Module]:
        """Patch embedding, the first stages with what follows, their output norms."""
        yield from self.downsample_layers[: self.frozen_stages + 1]
        yield from self.stages[: self.frozen_stages]
        for i in self.out_indices:
            if i < self.frozen_stages:
                yield self.get_submodule(f'norm{i}')

    def block_of(self, name: str) -> tuple[int, int] | None:
        """The way down to a stage counts to its first block."""
        match name.split('.'):
            case 'downsample_layers', stage, *_:
                return int(stage), -1 if stage == '0' else 0
            case 'stages', stage, block, *_:
                return int(stage), int(block)
        return None


def _depthwise(channels: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)


def _under_proj(module: nn.Module) -> nn.Module:
    """The module below one more name, as the released weights have it."""
    return nn.Sequential(OrderedDict(proj=module))
