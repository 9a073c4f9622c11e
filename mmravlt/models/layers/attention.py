import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmravlt.ops import rala, rala_kv_buffer, rope2d_rotate
from mmravlt.ops.rala import check_kappa
from mmravlt.ops.rope2d import Rope
from mmravlt.registry import ATTENTIONS

from .folding import fold_layer_norm, fold_scale
from .fused_conv import scaled_conv, split_conv, wide_depthwise_conv
from .norm import LayerNorm2d
from .recompute import call_recomputing_input


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError if an option is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f'{name} is {value!r}; give True or False.')


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Split (B, C, H, W) into (B, heads, H * W, d), a view in channels_last."""
    tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
    return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor, size: Sequence[int]) -> Tensor:
    """Join (B, heads, H * W, d) to a channels_last map (B, C, H, W)."""
    return x.transpose(1, 2).flatten(2).unflatten(1, size).permute(0, 3, 1, 2)


# The gate as a function of the normalised input, where it is not a projection of it.
_PHIS: dict[str, Callable[[Tensor], Tensor]] = {
    'identity': lambda x: x,
    'tanh': torch.tanh,
}
#: Functions φ(X) of the output augmentation by name.
PHIS = ('projection', *_PHIS)


class Attention(nn.Module):
    """What every kind of attention in RAVLT has in common.

    One 1×1 convolution makes queries, keys, values and the gate; the kind
    mixes the tokens; the values' local enhancement is added (LePE, a depthwise
    5×5 convolution); the gate multiplies the result. The gate is the paper's
    output augmentation, φ(X) in equation 6. All kinds own these parameters, so
    weights move freely between them; few kinds have one more.

    The convolution is ``qkvo``, or ``qkv`` where the gate needs no weights; either
    one is :attr:`first_conv`.

    A new kind is a subclass with its own :meth:`mix` and, if it is linear,
    :meth:`kv_buffer`, registered in :data:`mmravlt.registry.ATTENTIONS` under the
    name that configs use. Further arguments of its ``__init__`` are options, which
    configs give in a dict: ``dict(type='name', option=…)``.

    Args:
        channels (int): C of the maps, shape (B, C, H, W).
        num_heads (int): heads; each works on C / heads neighbouring channels.
        with_cp (bool | str): what to recompute, see :class:`mmravlt.models.RAVLT`.
        output_augmentation (bool): whether there is a gate.
        phi (str): what the gate is of the normalised input x: 'projection', a part of
            the first convolution; 'identity', x itself; 'tanh', tanh(x).
        lepe (bool): whether there is LePE; without it, the values are enhanced by the
            kind's own :meth:`local_branch`, if it has one.

    Raises:
        ValueError: if there is no such φ, one is chosen although there is no gate, or
            ``output_augmentation`` is neither True nor False.
    """

    #: Whether the kind has a gate in any network. In RAVLT, every kind has one.
    own_gate = False

    #: The local enhancement of the values, maps (B, C, H, W), if there is one.
    lepe: nn.Module | None

    def __init__(
        self,
        channels: int,
        num_heads: int,
        with_cp: bool | str = False,
        output_augmentation: bool = True,
        phi: str = 'projection',
        lepe: bool = True,
    ) -> None:
        super().__init__()
        check_flag('output_augmentation', output_augmentation)
        if phi not in PHIS:
            raise ValueError(
                f'phi is {phi!r}; give one of {", ".join(map(repr, PHIS))}.'
            )
        if phi != 'projection' and not output_augmentation:
            raise ValueError(
                f'phi is {phi!r} although output_augmentation is False, so that there '
                'is no gate; leave one of the two out.'
            )
        self.with_cp = with_cp
        self.num_heads = num_heads
        self.output_augmentation = output_augmentation
        self.phi = phi
        if output_augmentation and phi == 'projection':
            self.qkvo = nn.Conv2d(channels, 4 * channels, 1)
        else:
            self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        if lepe:
            self.lepe = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        else:
            self.lepe = self.local_branch(channels, num_heads)
        self.proj = nn.Conv2d(channels, channels, 1)

    @staticmethod
    def local_branch(channels: int, num_heads: int) -> nn.Module | None:
        """The kind's own convolution of the values, of maps (B, C, H, W)."""
        return None

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        """Mix tokens; all tensors have shape (B, heads, N, d)."""
        raise NotImplementedError

    def kv_buffer(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor | None:
        """What a linear attention multiplies the features of its queries with.

        Args:
            q (Tensor): queries, shape (B, heads, N, d), as for :meth:`mix`.
            k (Tensor): keys, same shape.
            v (Tensor): values, same shape.
            rope (tuple[Tensor, Tensor]): RoPE of the N positions.

        Returns:
            Tensor | None: shape (B, heads, d, d), at least float32; None if the kind
            has no such matrix.
        """
        return None

    @property
    def first_conv(self) -> nn.Module:
        """The convolution from the map (B, C, H, W) to queries, keys, values, gate."""
        return self.qkvo if hasattr(self, 'qkvo') else self.qkv

    def forward(
        self, x: Tensor, rope: Rope, norm: nn.Module, gamma: Tensor | None
    ) -> Tensor:
        """Compute ``gamma * attention(norm(x))`` of a map (B, C, H, W).

        Args:
            x (Tensor): map, shape (B, C, H, W).
            rope (tuple[Tensor, Tensor]): RoPE of its H * W positions.
            norm (nn.Module): normalisation before the attention.
            gamma (Tensor | None): layer scale, shape (1, C, 1, 1); None is 1.

        Returns:
            Tensor: shape (B, C, H, W).
        """
        chunks = 4 if hasattr(self, 'qkvo') else 3
        split = partial(split_conv, self.first_conv, chunks)
        normed = norm(x)
        if self.with_cp is True:  # the whole block is recomputed
            q, k, v, *gates = split(normed)
        else:
            q, k, v, *gates = call_recomputing_input(split, normed, norm, x)
        if self.output_augmentation and not gates:
            gates = [_PHIS[self.phi](normed)]
        del normed
        heads_q, heads_k, heads_v = (split_heads(y, self.num_heads) for y in (q, k, v))
        mixed = merge_heads(self.mix(heads_q, heads_k, heads_v, rope), x.shape[2:])
        if self.lepe is not None:
            mixed = mixed + wide_depthwise_conv(self.lepe, v)
        project: Callable[[Tensor], Tensor] = self.proj
        if gamma is not None:
            project = partial(scaled_conv, self.proj, gamma)
        if not gates:
            return project(mixed)
        (gate,) = gates
        if self.with_cp is True:
            return project(mixed * gate)
        return call_recomputing_input(project, mixed * gate, torch.mul, mixed, gate)

    def fold(self, norm: LayerNorm2d, gamma: Tensor) -> 'Attention':
        """An attention with LePE and a gate of weights, its neighbours folded in.

        Its :meth:`forward` computes the same with a norm without weights, and without a
        layer scale. By rows, it is computed with :meth:`project_rows`, mixing, and
        :meth:`finish_rows`.

        Args:
            norm (LayerNorm2d): normalisation before the attention; its weights are
                folded into the first convolution.
            gamma (Tensor): layer scale; it is folded into the last one.
        """
        folded = copy.deepcopy(self)
        folded.with_cp = False
        folded.qkvo = fold_layer_norm(norm.norm, self.qkvo)
        folded.proj = fold_scale(gamma, self.proj)
        return folded

    def project_rows(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """From the ``first`` to before the ``last`` of queries, keys, values, gate.

        Args:
            x (Tensor): rows of the normalised map, shape (B, C, h, W).
        """
        some = slice(first * x.shape[1], last * x.shape[1])
        weight, bias = self.qkvo.weight, self.qkvo.bias
        assert bias is not None
        return F.conv2d(x, weight[some], bias[some]).chunk(last - first, dim=1)

    def finish_rows(
        self, mixed: Tensor, v: Tensor, gate: Tensor, inner: slice
    ) -> Tensor:
        """What :meth:`forward` makes of mixed tokens, of some rows.

        Args:
            mixed (Tensor): result of the mixing, (B, heads, h * W, d).
            v (Tensor): values with two more rows on either side, (B, C, h + 4, W).
            gate (Tensor): shape (B, C, h, W).
            inner (slice): the rows among those of v.
        """
        assert self.lepe is not None
        mixed = merge_heads(mixed, gate.shape[2:])
        return self.proj(self.lepe(v)[:, :, inner].add_(mixed).mul_(gate))


@ATTENTIONS.register_module('rala')
class RALAttention(Attention):
    """Rank-augmented linear attention, see :func:`mmravlt.ops.rala`.

    Args:
        channels (int): as in :class:`Attention`.
        num_heads (int): as in :class:`Attention`.
        with_cp (bool | str): as in :class:`Attention`.
        kappa (str): kernel function, see :func:`mmravlt.ops.rala`.
        kv_augmentation (bool): whether tokens are weighted in the KV buffer.
        options: other arguments of :class:`Attention`.

    Raises:
        ValueError: if there is no such kernel function, or ``kv_augmentation`` is
            neither True nor False.
    """

    own_gate = True

    def __init__(
        self,
        channels: int,
        num_heads: int,
        with_cp: bool | str = False,
        kappa: str = 'elu+1',
        kv_augmentation: bool = True,
        **options,
    ) -> None:
        super().__init__(channels, num_heads, with_cp, **options)
        check_kappa(kappa)
        check_flag('kv_augmentation', kv_augmentation)
        self.kappa = kappa
        self.kv_augmentation = kv_augmentation

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return rala(q, k, v, rope, self.kappa, self.kv_augmentation)

    def kv_buffer(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        return rala_kv_buffer(q, k, v, rope, self.kappa, self.kv_augmentation)


@ATTENTIONS.register_module('softmax')
class SoftmaxAttention(Attention):
    """Softmax attention on rotated queries and keys, without an N×N matrix."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        q, k = rope2d_rotate(q, rope), rope2d_rotate(k, rope)
        return F.scaled_dot_product_attention(q, k, v)
