"""RAVLT, the Rank-Augmented Vision Linear Transformer.

Paper: "Breaking the Low-Rank Dilemma of Linear Attention", Fan, Huang, He,
CVPR 2025, https://arxiv.org/abs/2411.07635. Authors' code and weights:
https://github.com/qhfan/RALA. This is an independent implementation, licensed under
Apache-2.0, that computes what the authors' release computes.

Paper and release differ. The paper describes rank-augmented linear attention in all
four stages; the released code, with which all published weights were trained, has
softmax attention in the last two. The release is the default here; ``attention='rala'``
is the paper's text. Its Table 9's ablations are options, see ``docs/ablations.md``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from mmravlt.models.layers import (
    FFN,
    Downsample,
    DropPath,
    Kind,
    LayerNorm2d,
    PatchEmbed,
    RoPE2d,
    add_option,
    build_attention,
    call_recomputing,
    check_flag,
    init_convolution,
    read_kind,
    residual_conv,
)
from mmravlt.ops.rope2d import Rope
from mmravlt.registry import register_model

from .base import Backbone, is_four

# The release's values of the options that the paper's Table 9 ablates: of attention,
# and of a block, where the FFN's ratio makes up for the parameters.
_RELEASED_ATTENTION = dict(
    kappa='elu+1', kv_augmentation=True, output_augmentation=True, phi='projection'
)
_RELEASED_BLOCK = dict(cpe=True, ffn_ratio=3.5)


class Block(nn.Module):
    """One transformer block: position, attention, feed-forward.

    ::

        x -> + dw 3x3 -> + gamma_1 * attn(norm1) -> + gamma_2 * ffn(norm2) ->

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): attention heads.
        attention (str | dict): a kind registered in ``mmravlt.registry.ATTENTIONS``, or
            a dict with it as ``type`` and with options.
        drop_path_rate (float): probability to drop either branch in training.
        layer_scale_init_value (float): initial value of both gammas.
        with_cp (bool | str): what to recompute, see :class:`RAVLT`.
        cpe (bool): whether there is the depthwise convolution ``pos``, the paper's
            conditional positional encoding.
        ffn_ratio (float): hidden channels of the FFN for each of C, rounded down.

    Raises:
        ValueError: if there is no such kind or option.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        attention: Kind,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool | str = False,
        cpe: bool = True,
        ffn_ratio: float = 3.5,
    ) -> None:
        super().__init__()
        check_flag('cpe', cpe)
        self.pos = None
        if cpe:
            self.pos = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = LayerNorm2d(channels)
        kind = read_kind(attention, 'attention')
        self.attn = build_attention(kind, channels, num_heads, with_cp)
        self.norm2 = LayerNorm2d(channels)
        self.ffn = FFN(channels, int(channels * ffn_ratio), with_cp)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        gamma = torch.full((1, channels, 1, 1), float(layer_scale_init_value))
        self.gamma_1 = nn.Parameter(gamma)
        self.gamma_2 = nn.Parameter(gamma.clone())

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W); ``rope`` is the stage's RoPE."""
        if self.pos is not None:
            x = residual_conv(self.pos, x)
        x = x + self.drop_path(self.attn(x, rope, self.norm1, self.gamma_1))
        return x + self.drop_path(self.ffn(x, self.norm2, self.gamma_2))


class Stage(nn.Module):
    """Blocks of one resolution, and the way down to the next.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): attention heads of each block.
        attention (str | dict): kind of attention of each block.
        drop_path_rates (Sequence[float]): one per block.
        layer_scale_init_value (float): initial value of the blocks' gammas.
        out_channels (int | None): channels of the next stage; None if it is the last.
        norm_cfg (dict): batch normalisation of the downsampling.
        with_cp (bool | str): see :class:`RAVLT`.
        block_options (dict): further arguments of each :class:`Block`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        attention: Kind,
        drop_path_rates: Sequence[float],
        layer_scale_init_value: float,
        out_channels: int | None,
        norm_cfg: dict,
        with_cp: bool | str,
        **block_options,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.RoPE = RoPE2d(channels // num_heads)
        # nn.ModuleList does not say what it holds, here and in RAVLT.
        self.blocks: Iterable[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(
                channels,
                num_heads,
                attention,
                rate,
                layer_scale_init_value,
                with_cp,
                **block_options,
            )
            for rate in drop_path_rates
        )
        if out_channels is not None:
            self.downsample = Downsample(channels, out_channels, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W); the caller downsamples."""
        rope = self.RoPE(*x.shape[-2:], x.device, x.dtype)
        for block in self.blocks:
            if self.with_cp is True:
                x = call_recomputing(block, x, rope)
            else:
                x = block(x, rope)
        return x


@register_model
class RAVLT(Backbone):
    """RAVLT backbone.

    ::

        image  B x 3 x H x W
          |    patch_embed, stride 4
          +-- layers.0: blocks -> extra_norms.0 -> B x C1 x H/4  x W/4
          |    downsample
          +-- layers.1: blocks -> extra_norms.1 -> B x C2 x H/8  x W/8
          |    downsample
          +-- layers.2: blocks -> extra_norms.2 -> B x C3 x H/16 x W/16
          |    downsample
          +-- layers.3: blocks -> extra_norms.3 -> B x C4 x H/32 x W/32

    Any size of at least 1×1 works; a side that does not divide rounds up at
    each stride. Stages after the last of ``out_indices`` are not built.

    Args:
        arch (str | dict): 't', 's', 'b', 'l', or a dict with ``embed_dims``, ``depths``
            and ``num_heads`` (four values each) and, if wanted, ``drop_path_rate``
            (default 0) and ``layer_scale_init_values`` (default 1, a value or four).
        attention (str | dict | Sequence[str | dict]): each stage's kind of attention,
            such as 'rala' or 'softmax', out of ``mmravlt.registry.ATTENTIONS``, or one
            for all. A dict has the name as ``type``, and options of the kind:
            ``dict(type='rala', kappa='relu')``. Defaults to the layout of the released
            weights.
        out_indices (Sequence[int]): stages whose maps are returned.
        output_norm (bool): normalise each returned map (``extra_norms``), as
            detection and segmentation do; the classifier does not.
        in_channels (int): channels of the image.
        drop_path_rate (float | None): stochastic depth of the last block; the
            others grow linearly from 0. None takes the variant's own.
        layer_scale_init_values (float | Sequence[float] | None): initial layer
            scale, one value or one per stage. None takes the variant's own.
        frozen_stages (int): -1 freezes nothing, 0 the patch embedding, n > 0
            also the first n stages with their downsampling and output norms:
            no gradient, batch statistics fixed, no stochastic depth.
        norm_cfg (dict): normalisation in patch embedding and downsampling,
            ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        norm_eval (bool): keep all batch statistics fixed in training.
        with_cp (bool | str): recompute more in the backward pass to save memory.
            ``'selective'`` recomputes the depthwise half of each FFN, which costs
            little; True recomputes whole blocks. By default, only normalisation,
            GELU and gates are recomputed.
        kv_augmentation (bool): in stages of 'rala', weight the tokens in the KV
            buffer; False weights them all alike. This option and the next five are
            the ablations of the paper's Table 9, and default to the release. Those of
            attention are given to every stage whose kind has such an option.
        output_augmentation (bool): in all stages, multiply the result of attention
            with the gate φ(x); False leaves out the gate and its weights.
        cpe (bool): begin each block with a depthwise convolution, the conditional
            positional encoding.
        phi (str): the gate as a function of the normalised input of attention:
            'projection', 'identity' or 'tanh'; the last two have no weights.
        kappa (str): in stages of 'rala', the kernel function: 'elu+1', 'relu' or
            'softmax' (over the channels of a head).
        ffn_ratio (float): hidden channels of the FFN for each of C, rounded down.
            4.0 makes up for the parameters of a gate without weights.
        out_channels_last (bool): return maps in PyTorch's memory format channels_last,
            which saves copying them. Convolutions take it as well, and other layers
            that do not call ``view`` on a map. By default maps are contiguous.
        init_cfg (dict | None): as in MMEngine; ``dict(type='Pretrained',
            checkpoint=…)`` takes any RAVLT weights of this size: a backbone's, or those
            of the backbone in a classifier, detector or segmentor.

    Raises:
        ValueError: if an argument has a value that no model can be built of.
    """

    # Table 1 of the paper; the last two columns are from the released code.
    # fmt: off
    arch_zoo = {
        't': dict(embed_dims=(64, 128, 256, 512), depths=(2, 2, 6, 2),
                  num_heads=(1, 2, 4, 8), drop_path_rate=0.10,
                  layer_scale_init_values=(1, 1, 1, 1)),
        's': dict(embed_dims=(64, 128, 320, 512), depths=(3, 5, 9, 3),
                  num_heads=(1, 2, 5, 8), drop_path_rate=0.15,
                  layer_scale_init_values=(1, 1, 1, 1)),
        'b': dict(embed_dims=(96, 192, 384, 512), depths=(4, 6, 12, 6),
                  num_heads=(1, 2, 6, 8), drop_path_rate=0.40,
                  layer_scale_init_values=(1, 1, 1e-6, 1e-6)),
        'l': dict(embed_dims=(96, 192, 448, 640), depths=(4, 7, 19, 8),
                  num_heads=(1, 2, 7, 10), drop_path_rate=0.55,
                  layer_scale_init_values=(1e-6, 1e-6, 1e-6, 1e-6)),
    }
    # fmt: on
    arch_defaults = {'drop_path_rate': 0.0, 'layer_scale_init_values': 1.0}
    head_rule = (4, 'RoPE needs a multiple of 4 channels in each head')
    with_cp_names = ('selective',)

    def __init__(
        self,
        arch: str | dict = 't',
        attention: Kind | Sequence[Kind] = ('rala', 'rala', 'softmax', 'softmax'),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_norm: bool = True,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        layer_scale_init_values: float | Sequence[float] | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006, C408 (read only)
        norm_eval: bool = False,
        with_cp: bool | str = False,
        kv_augmentation: bool = True,
        output_augmentation: bool = True,
        cpe: bool = True,
        phi: str = 'projection',
        kappa: str = 'elu+1',
        ffn_ratio: float = 3.5,
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
        dims = self.settings['embed_dims']
        if layer_scale_init_values is None:
            layer_scale_init_values = self.settings['layer_scale_init_values']
        layer_scales = _per_stage('layer_scale_init_values', layer_scale_init_values)
        _check_ffn_ratio(ffn_ratio, min(dims))
        released = {**_RELEASED_ATTENTION, **_RELEASED_BLOCK}
        options = dict(
            kappa=kappa,
            kv_augmentation=kv_augmentation,
            output_augmentation=output_augmentation,
            phi=phi,
            cpe=cpe,
            ffn_ratio=ffn_ratio,
        )
        #: The options of Table 9 that differ from the release.
        self.ablation = {
            name: value
            for name, value in options.items()
            if type(value) is not type(released[name]) or value != released[name]
        }
        kinds = _read_attention(attention)[: self.num_stages]
        for name in self.ablation.keys() & _RELEASED_ATTENTION.keys():
            add_option(kinds, name, self.ablation[name])

        self.patch_embed = PatchEmbed(in_channels, dims[0], norm_cfg)
        self.layers: Sequence[Stage] = nn.ModuleList(  # type: ignore[assignment]
            Stage(
                dims[i],
                self.settings['num_heads'][i],
                kinds[i],
                self.drop_path_rates[i],
                layer_scales[i],
                dims[i + 1] if i + 1 < self.num_stages else None,
                norm_cfg,
                with_cp,
                cpe=cpe,
                ffn_ratio=ffn_ratio,
            )
            for i in range(self.num_stages)
        )
        self.extra_norms = nn.ModuleDict(
            {
                str(i): LayerNorm2d(dims[i]) if output_norm else nn.Identity()
                for i in self.out_indices
            }
        )
        self.apply(init_convolution)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.forward`."""
        outputs = []
        x = self.patch_embed(x)
        for i, stage in enumerate(self.layers):
            x = stage(x)
            below = stage.downsample(x) if i + 1 < len(self.layers) else x
            if i in self.out_indices:
                outputs.append(self.lay_out(self.extra_norms[str(i)](x)))
            x = below
        return tuple(outputs)

    def frozen_parts(self) -> Iterable[nn.Module]:
        """Patch embedding, the first stages, and their output norms."""
        yield self.patch_embed
        yield from self.layers[: self.frozen_stages]
        for i in self.out_indices:
            if i < self.frozen_stages:
                yield self.extra_norms[str(i)]

    def block_of(self, name: str) -> tuple[int, int] | None:
        """The way down to the next stage counts to the last block before it."""
        match name.split('.'):
            case 'patch_embed', *_:
                return 0, -1
            case 'layers', stage, 'blocks', block, *_:
                return int(stage), int(block)
            case 'layers', stage, *_:
                return int(stage), self.settings['depths'][int(stage)] - 1
        return None


def _per_stage(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    """One value per stage, from one value or from four."""
    values = (value,) * 4 if isinstance(value, Real) else value
    if not is_four(values) or not all(isinstance(v, Real) for v in values):
        raise ValueError(
            f'{name} is {value!r}; RAVLT has 4 stages, give one number or 4.'
        )
    return tuple(values)


def _read_attention(attention: Kind | Sequence[Kind]) -> list[dict]:
    """Class and options of the attention of four stages."""
    if isinstance(attention, (str, Mapping)):
        attention = [attention] * 4
    if not is_four(attention):
        raise ValueError(
            f'attention is {attention!r}; give a kind for all stages, or 4, one per '
            'stage.'
        )
    return [read_kind(kind, f'attention[{i}]') for i, kind in enumerate(attention)]


def _check_ffn_ratio(ratio: float, channels: int) -> None:
    is_number = isinstance(ratio, Real) and not isinstance(ratio, bool)
    if not is_number or not 1 <= ratio * channels < math.inf:
        raise ValueError(
            f'ffn_ratio is {ratio!r}; give a number that leaves the FFN hidden '
            f'channels where the map has {channels}.'
        )
