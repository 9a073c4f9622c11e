"""Rank-Augmented Linear Attention (RALA), equations 3, 4 and 6 of the paper.

Origin: "Breaking the Low-Rank Dilemma of Linear Attention", CVPR 2025,
https://arxiv.org/abs/2411.07635. Where the paper and the released code differ
(scaled logits, RoPE, the 1e-6 in the denominator), this is the released code,
because the published weights were trained with it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import rala_kernel
from .rope2d import Rope, rope2d_rotate
from .runtime import at_least_float32, is_recording, use_autocast

# Elements of a chunk on a CPU: what is computed of one stays in its cache.
_CHUNK_ELEMENTS = 2**18

#: Weight from which a key is a peak: above a half, so that there is one at most,
#: however weights are rounded.
PEAK = 0.6


#: Kernel functions κ by name. Softmax is over the channels of a head.
KAPPAS: dict[str, Callable[[Tensor], Tensor]] = {
    # To PyTorch's compiler, elu has a gradient of wrong strides.
    'elu+1': lambda x: torch.where(x > 0, x + 1, x.clamp(max=0).exp()),
    'relu': torch.relu,
    'softmax': lambda x: x.softmax(dim=-1),
}


def check_kappa(name: str) -> None:
    """Raise a ValueError if there is no such kernel function."""
    if name not in KAPPAS:
        raise ValueError(
            f'kappa is {name!r}; give one of {", ".join(map(repr, KAPPAS))}.'
        )


def rala(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    kappa: str = 'elu+1',
    kv_augmentation: bool = True,
) -> Tensor:
    r"""Attend from every token to every other in time linear in their number.

    With :math:`\kappa(x) = \mathrm{elu}(x) + 1` and R the rotation by RoPE:

    .. math::
        g &= \tfrac{1}{N} \sum_i \kappa(q_i), \qquad
        a_j = \mathrm{softmax}_j\big(g \cdot \kappa(k_j) / \sqrt{d}\big) \\
        y_i &= \frac{R\kappa(q_i) \sum_j a_j \, R\kappa(k_j)^\top v_j}
                    {\kappa(q_i) \cdot \sum_j a_j \kappa(k_j) + 10^{-6}}

    The paper writes :math:`\alpha_j = N a_j` and divides the sums by N; the
    two cancel and are left out.

    Args:
        q (Tensor): queries before :math:`\kappa`, shape (B, heads, N, d).
        k (Tensor): keys before :math:`\kappa`, same shape.
        v (Tensor): values, same shape.
        rope (tuple[Tensor, Tensor]): from :func:`~mmravlt.ops.rope2d_table`
            for these N tokens.
        kappa (str): :math:`\kappa`, one of :data:`KAPPAS`. Table 9 of the paper
            compares them. With 'relu', the denominator may be as small as the
            :math:`10^{-6}` alone, while the rotated numerator is not.
        kv_augmentation (bool): whether tokens are weighted; False makes all
            :math:`a_j = 1 / N`, the paper's Table 9 without KV augmentation.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``. Everything is
        computed at least in float32, under autocast too. On a GPU, fused Triton
        kernels compute it where they apply, see :mod:`mmravlt.ops.kernels`. With the
        default options, it can be differentiated once; with others,
        :func:`rala_reference` computes it.
    """
    if rala_kernel(q, k, v, kappa, kv_augmentation)[0] == 'triton':
        from .rala_triton import rala as fused_rala

        return fused_rala(q, k, v, rope)
    if is_recording():
        # A compiler fuses and differentiates the equations by itself. PyTorch's
        # takes tensors of four axes for maps and lays them out as channels_last,
        # here with the heads innermost, and then writes the logits of 16 heads at
        # once, past the end if there are fewer (seen in 2.11). One more axis, and
        # it leaves the layout alone.
        q, k, v = (x.unsqueeze(2) for x in (q, k, v))
        return rala_reference(q, k, v, rope, kappa, kv_augmentation).squeeze(2)
    if (kappa, kv_augmentation) != ('elu+1', True):
        return rala_reference(q, k, v, rope, kappa, kv_augmentation)
    return _Rala.apply(q, k, v, *rope)


def rala_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    kappa: str = 'elu+1',
    kv_augmentation: bool = True,
) -> Tensor:
    """:func:`rala` as its equations stand, differentiated by PyTorch."""
    with use_autocast(q.device.type, None):
        q, keys, buffer = _sum_up(q, k, v, rope, kappa, kv_augmentation)
        denominator = q @ keys.transpose(-2, -1) + 1e-6
        return (rope2d_rotate(q, rope) @ buffer / denominator).to(v.dtype)


def rala_kv_buffer(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    kappa: str = 'elu+1',
    kv_augmentation: bool = True,
) -> Tensor:
    r"""The KV buffer, :math:`\sum_j a_j \, R\kappa(k_j)^\top v_j`.

    It is what :func:`rala`, which has the same arguments, multiplies the rotated
    :math:`\kappa(q_i)` with: the matrix B of the paper's equation 3 divided by N, with
    RoPE, which the paper does not mention.

    Returns:
        Tensor: shape (B, heads, d, d), at least float32.
    """
    with use_autocast(q.device.type, None):
        return _sum_up(q, k, v, rope, kappa, kv_augmentation)[2]


def _sum_up(
    q: Tensor, k: Tensor, v: Tensor, rope: Rope, kappa: str, kv_augmentation: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """κ(q), the mean key (B, heads, 1, d), and the KV buffer (B, heads, d, d)."""
    check_kappa(kappa)
    # PyTorch's older ONNX exporter, which mmdeploy uses, knows transpose but not mT,
    # and takes the number of tokens in shapes, also zeros_like's, for constant.
    q, k = (KAPPAS[kappa](at_least_float32(x)) for x in (q, k))
    if kv_augmentation:
        global_query = q.mean(dim=-2, keepdim=True)
        logits = global_query @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    else:
        logits = 0 * k[..., :1].transpose(-2, -1)  # of all tokens alike
    weights = logits.softmax(dim=-1)  # a: B, heads, 1, N
    weighted = rope2d_rotate(k, rope) * weights.transpose(-2, -1)
    return q, weights @ k, weighted.transpose(-2, -1) @ at_least_float32(v)


def kappa(x: Tensor) -> Tensor:
    r""":math:`\kappa(x) = \mathrm{elu}(x) + 1` without a gradient, at least float32."""
    return kappa_slope(x).add_(x.clamp(min=0))


def kappa_slope(x: Tensor) -> Tensor:
    """Derivative of :func:`kappa`; to compute both from it is faster than elu."""
    return at_least_float32(x).clamp(max=0).exp_()


class KeySums(NamedTuple):
    """What RALA keeps of the keys and values, of any number of tokens.

    Weights are relative to the largest, so that none exceeds 1.
    """

    largest: Tensor  # logit, shape (B, heads, 1, 1)
    weight: Tensor  # sum of the weights w, shape (B, heads, 1, 1)
    keys: Tensor  # sum of w κ(k), shape (B, heads, 1, d)
    buffer: Tensor  # sum of w Rκ(k)ᵀ v, shape (B, heads, d, d)


def add_keys(
    sums: KeySums | None, k: Tensor, v: Tensor, global_query: Tensor, rope: Rope
) -> KeySums:
    """Add tokens to the sums; None starts new ones.

    Args:
        sums (KeySums | None): of other tokens of the same maps.
        k (Tensor): keys before κ, shape (B, heads, n, d).
        v (Tensor): values, same shape.
        global_query (Tensor): mean of κ(q) over all tokens, (B, heads, 1, d).
        rope (tuple[Tensor, Tensor]): RoPE of the n tokens.
    """
    k = kappa(k)
    logits = k @ global_query.mT * k.shape[-1] ** -0.5
    largest = logits.amax(dim=-2, keepdim=True)
    if sums is not None:
        largest = torch.maximum(largest, sums.largest)
    weights = (logits - largest).exp()
    added: tuple[Tensor, ...] = (
        weights.sum(dim=-2, keepdim=True),
        weights.mT @ k,
        (rope2d_rotate(k, rope) * weights).mT @ at_least_float32(v),
    )
    if sums is not None:
        scale = (sums.largest - largest).exp()
        pairs = zip(added, sums[1:], strict=True)
        added = tuple(mine.addcmul_(theirs, scale) for mine, theirs in pairs)
    return KeySums(largest, *added)


def attend(q: Tensor, sums: KeySums, rope: Rope, out: Tensor | None = None) -> Tensor:
    """Attend from queries (B, heads, n, d) to the tokens that were summed up."""
    q = kappa(q)
    keys, buffer = sums.keys / sums.weight, sums.buffer / sums.weight
    numerator, denominator = rope2d_rotate(q, rope) @ buffer, q @ keys.mT + 1e-6
    return torch.div(numerator, denominator, out=out)


class _Rala(torch.autograd.Function):
    """RALA chunk by chunk, keeping q, k, v and d×d sums for its own backward pass."""

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        rope = rows, columns
        sums: Any = None
        g: Any = 0
        with use_autocast(q.device.type, None):
            for chunk, _ in _chunks(q, rope):
                g = g + kappa(q[chunk]).sum(dim=-2, keepdim=True)
            g = g / q.shape[-2]
            for chunk, chunk_rope in _chunks(q, rope):
                sums = add_keys(sums, k[chunk], v[chunk], g, chunk_rope)
            y = _empty_map(v)
            for chunk, chunk_rope in _chunks(q, rope):
                attend(q[chunk], sums, chunk_rope, out=y[chunk])
        ctx.save_for_backward(q, k, v, g, *sums, *rope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, largest, weight, keys, buffer, rows, columns = ctx.saved_tensors
        rope = rows, columns
        # sums over chunks, which begin with nothing
        dkeys: Any = 0
        dbuffer: Any = 0
        dg: Any = 0
        others: Any = 0
        peak_keys: Any = 0
        peaks: list[Tensor] = []
        dq, dk, dv = (_empty_map(x) for x in (q, k, v))
        scale = q.shape[-1] ** -0.5
        with use_autocast(q.device.type, None):
            keys, buffer = keys / weight, buffer / weight
            # y = numerator / denominator. First the gradients of the sums, and of
            # κ(q) without what comes through the global query.
            for chunk, chunk_rope in _chunks(q, rope):
                kappa_q = kappa(q[chunk])
                rotated = rope2d_rotate(kappa_q, chunk_rope)
                denominator = kappa_q @ keys.mT + 1e-6
                dnumerator = at_least_float32(dy[chunk]) / denominator
                drotated = dnumerator @ buffer.mT
                # The same as the sum over dnumerator * numerator.
                ddenominator = (rotated * drotated).sum(dim=-1, keepdim=True)
                ddenominator = ddenominator.neg_() / denominator
                dbuffer = dbuffer + rotated.mT @ dnumerator
                dkeys = dkeys + ddenominator.mT @ kappa_q
                dkappa_q = rope2d_rotate(drotated, chunk_rope, True)
                torch.addcmul(dkappa_q, ddenominator, keys, out=dq[chunk])
            # Keys and values. The mean of the weights' gradients, which softmax
            # subtracts, needs no pass of its own. Where one key has most of the weight,
            # that mean is nearly its own da, and rounding would leave nothing of the
            # difference: all dlogits sum to zero, so that of this peak is what the
            # others lack.
            mean = (buffer * dbuffer).sum((-2, -1), True) + (keys * dkeys).sum(-1, True)
            for chunk, chunk_rope in _chunks(q, rope):
                kappa_k = kappa(k[chunk])
                rotated = rope2d_rotate(kappa_k, chunk_rope)
                a = (kappa_k @ g.mT * scale - largest).exp() / weight
                is_peak = a > PEAK
                drotated = at_least_float32(v[chunk]) @ dbuffer.mT
                da = (rotated * drotated).sum(-1, True) + kappa_k @ dkeys.mT
                dlogits = (a * (da - mean) * scale).masked_fill_(is_peak, 0)
                dg = dg + dlogits.mT @ kappa_k
                others = others + dlogits.sum(-2, True)
                dv[chunk] = rotated.mul_(a) @ dbuffer
                dkappa_k = rope2d_rotate(drotated, chunk_rope, True).add_(dkeys)
                dkappa_k = dkappa_k.mul_(a).addcmul_(dlogits, g)
                peaks.append(is_peak.to(kappa_k.dtype))
                peak_keys = peak_keys + peaks[-1].mT @ kappa_k
                # The slope of κ is κ where that is less than 1.
                torch.mul(dkappa_k, kappa_k.clamp_(max=1), out=dk[chunk])
            dg = dg - others * peak_keys
            # Without a peak, this adds zeros to the first key's gradient.
            lacking = -others * g * peak_keys.clamp(max=1)
            index = torch.cat(peaks, -2).argmax(-2, True).expand_as(lacking)
            dk.scatter_add_(-2, index, lacking.to(dk.dtype))
            dg = dg / q.shape[-2]
            for chunk, _ in _chunks(q, rope):
                torch.mul(dq[chunk] + dg, kappa_slope(q[chunk]), out=dq[chunk])
        return dq, dk, dv, None, None


def _chunks(x: Tensor, rope: Rope) -> Iterator[tuple[tuple, Rope]]:
    """Whole rows of tokens of (B, heads, N, d): the index and the RoPE of each."""
    rows, columns = rope
    height, width = rows.shape[0], columns.shape[0]
    step = height
    if x.device.type == 'cpu':
        row = max(1, width * x.shape[0] * x.shape[1] * x.shape[3])
        step = max(1, _CHUNK_ELEMENTS // row)
    for start in range(0, height, step):
        stop = min(start + step, height)
        index = (..., slice(start * width, stop * width), slice(None))
        yield index, (rows[start:stop], columns)


def _empty_map(like: Tensor) -> Tensor:
    """(B, heads, N, d) laid out as (B, N, heads, d), which is channels last."""
    return torch.empty_like(
        like.transpose(1, 2), memory_format=torch.contiguous_format
    ).transpose(1, 2)
