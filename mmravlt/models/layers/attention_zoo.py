"""The linear attentions of Table 8 of the paper, and attention for any network.

In RAVLT, every kind stands in the same shell, :class:`Attention`, with its LePE and
gate; names are those of ``RAVLT(attention=…)``. Outside of RAVLT,
:class:`GlobalAttention` holds a kind with nothing but what its own paper gives it.
"""

import torch
from torch import Tensor, nn

from mmravlt.ops import (
    efficient_attention,
    enhanced_attention,
    focused_attention,
    hydra_attention,
    l2vit_attention,
    linear_angular_attention,
    linear_attention,
    rope2d_table,
)
from mmravlt.ops.linear_attention import (
    Features,
    efficient_features,
    focused_features,
    hydra_features,
    hydra_kv_buffer,
    kv_buffer,
    linear_angular_features,
    linear_features,
    relu_features,
)
from mmravlt.ops.rope2d import Rope
from mmravlt.registry import ATTENTIONS, register_model

from .attention import Attention, merge_heads, split_heads
from .attention_kinds import Kind, build_attention, read_kind
from .init import init_convolution


class _FeatureAttention(Attention):
    """A kind that maps queries and keys to features; it has no use for RoPE."""

    def features(self, q: Tensor, k: Tensor) -> Features:
        """Features of queries and keys, all of shape (B, heads, N, d)."""
        raise NotImplementedError

    def kv_buffer(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        """What features of queries are multiplied with, (B, heads, d, d)."""
        return kv_buffer(self.features(q, k)[1], v)


@ATTENTIONS.register_module('linear')
class LinearAttention(_FeatureAttention):
    """Vanilla linear attention, see :func:`mmravlt.ops.linear_attention`."""

    def features(self, q: Tensor, k: Tensor) -> Features:
        return linear_features(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return linear_attention(q, k, v)


@ATTENTIONS.register_module('hydra')
class HydraAttention(_FeatureAttention):
    """One head per channel, see :func:`mmravlt.ops.hydra_attention`.

    The number of heads changes nothing but the shape of the buffer.
    """

    def features(self, q: Tensor, k: Tensor) -> Features:
        return hydra_features(q, k)

    def kv_buffer(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return hydra_kv_buffer(self.features(q, k)[1], v)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return hydra_attention(q, k, v)


@ATTENTIONS.register_module('efficient')
class EfficientAttention(_FeatureAttention):
    """Softmax of queries and keys, see :func:`mmravlt.ops.efficient_attention`."""

    def features(self, q: Tensor, k: Tensor) -> Features:
        return efficient_features(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return efficient_attention(q, k, v)


@ATTENTIONS.register_module('linear_angular')
class LinearAngularAttention(_FeatureAttention):
    """Castling-ViT's, see :func:`mmravlt.ops.linear_angular_attention`.

    Its own convolution of the values is along the row of all tokens, with 9 weights
    per head and no bias. In RAVLT, LePE takes its place.
    """

    @staticmethod
    def local_branch(channels: int, num_heads: int) -> nn.Module:
        return _TokenConv(num_heads)

    def features(self, q: Tensor, k: Tensor) -> Features:
        return linear_angular_features(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return linear_angular_attention(q, k, v)


@ATTENTIONS.register_module('enhanced')
class EnhancedAttention(_FeatureAttention):
    """EfficientViT's ReLU attention, see :func:`mmravlt.ops.enhanced_attention`.

    The depthwise convolution that enhances it is one of the values, 5×5. In RAVLT,
    LePE is that convolution. (The first version of the paper has it in the FFN, later
    versions convolve queries, keys and values to tokens of another scale.)
    """

    @staticmethod
    def local_branch(channels: int, num_heads: int) -> nn.Module:
        return nn.Conv2d(channels, channels, 5, padding=2, groups=channels)

    def features(self, q: Tensor, k: Tensor) -> Features:
        return relu_features(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return enhanced_attention(q, k, v)


@ATTENTIONS.register_module('focused')
class FocusedAttention(_FeatureAttention):
    """FLatten Transformer's, see :func:`mmravlt.ops.focused_attention`.

    Its own convolution of the values is depthwise, 5×5, with weights that all heads
    share. In RAVLT, LePE takes its place, which has weights for each head. The learnt
    scale of the channels belongs to the kind in either case.
    """

    def __init__(self, channels: int, num_heads: int, *args, **kwargs) -> None:
        super().__init__(channels, num_heads, *args, **kwargs)
        self.scale = nn.Parameter(torch.zeros(channels))

    @staticmethod
    def local_branch(channels: int, num_heads: int) -> nn.Module:
        return _SharedConv(channels // num_heads)

    def features(self, q: Tensor, k: Tensor) -> Features:
        return focused_features(q, k, self._scale())

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return focused_attention(q, k, v, self._scale())

    def _scale(self) -> Tensor:
        return self.scale.view(self.num_heads, 1, -1)


@ATTENTIONS.register_module('l2vit')
class L2ViTAttention(_FeatureAttention):
    """ReLU attention with a learnt factor, see :func:`mmravlt.ops.l2vit_attention`.

    It is the attention alone: L²ViT's local module behind it is left out.
    """

    def __init__(self, channels: int, num_heads: int, *args, **kwargs) -> None:
        super().__init__(channels, num_heads, *args, **kwargs)
        start = (channels // num_heads) ** -0.5
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), start))

    def features(self, q: Tensor, k: Tensor) -> Features:
        return relu_features(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return l2vit_attention(q, k, v, self.temperature)


class _TokenConv(nn.Conv2d):
    """Convolve along the row of tokens; a head's channels share its 9 weights."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(
            num_heads, num_heads, (9, 1), padding=(4, 0), groups=num_heads, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        heads = split_heads(x, self.groups)  # B, heads, N, d
        return merge_heads(super().forward(heads), x.shape[2:])


class _SharedConv(nn.Conv2d):
    """Convolve each head's map with the same weights, depthwise 5×5."""

    def __init__(self, head_dim: int) -> None:
        super().__init__(head_dim, head_dim, 5, padding=2, groups=head_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        heads = x.unflatten(1, (-1, self.groups)).flatten(0, 1)  # B · heads, d, H, W
        heads = super().forward(heads)
        return heads.reshape(x.shape)


@register_model
class GlobalAttention(nn.Module):
    """Attention from every position of a map to every other, for any network.

    ::

        1x1 conv -> q, k, v -> the kind's mixing of tokens -> 1x1 conv
                        |                                  |
                        +-> the kind's own convolution, if any

    Only 'rala' also has a gate, the output augmentation of the paper. There is neither
    CPE nor LePE, unless an option of the kind says otherwise (``lepe=True``).

    Args:
        channels (int): C of the maps.
        num_heads (int): heads; each takes C / heads channels, a multiple of 4.
        kind (str | dict): a kind registered in ``mmravlt.registry.ATTENTIONS``, or a
            dict with it as ``type`` and with options, such as
            ``dict(type='rala', kappa='relu')``.
        rope (bool): rotate queries and keys by their position, in the kinds that RAVLT
            rotates them in, 'rala' and 'softmax'. By default positions count for no
            kind, as in the paper's equations.

    Raises:
        ValueError: if there is no such kind or option, or the heads do not divide the
            channels.
    """

    def __init__(
        self, channels: int, num_heads: int, kind: Kind = 'rala', rope: bool = False
    ) -> None:
        super().__init__()
        options = read_kind(kind, 'kind')
        if num_heads < 1 or channels % (4 * num_heads):
            raise ValueError(
                f'num_heads is {num_heads} for {channels} channels; give a number that '
                'leaves each head a multiple of 4 channels.'
            )
        self.rope = rope
        bare = dict(output_augmentation=options['type'].own_gate, lepe=False)
        self.attention = build_attention({**bare, **options}, channels, num_heads)
        self.norm = nn.Identity()
        self.apply(init_convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) of any H and W to (B, C, H, W)."""
        head_dim = x.shape[1] // self.attention.num_heads
        height, width = x.shape[2:]
        rope = rope2d_table(height, width, head_dim, x.device, x.dtype)
        if not self.rope:
            # no rotation: cosine 1, sine 0
            rows, columns = (t.new_tensor((1, 0)).repeat(*t.shape[:2], 1) for t in rope)
            rope = rows, columns
        return self.attention(x, rope, self.norm, None)
