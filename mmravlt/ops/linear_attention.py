r"""Global attentions of linear cost that RALA is compared with, Table 8 of the paper.

Each maps queries and keys to features, sums the keys and values up in one d×d matrix
per head, the KV buffer, and multiplies the queries' features with it:

.. math::
    y_i = f_q(q_i) \, B \, / \, z_i, \qquad B = \sum_j f_k(k_j)^\top v_j

They differ in the features and in the normaliser z, and some have a depthwise
convolution of the values besides, which is a layer: see
:mod:`mmravlt.models.layers.attention_zoo`.

For each attention there are two functions: ``…_features(q, k)``, and the attention
itself. Tensors have the shape (B, heads, N, d). Everything is computed at least in
float32, under autocast too; results have the type of the values, features and
:func:`kv_buffer` the type of the computation.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .rala import KAPPAS
from .runtime import at_least_float32, use_autocast

Features = tuple[Tensor, Tensor]

# Added to squared lengths before the root. A token of zeros, such as those of a padded
# image, would otherwise get a gradient without bounds.
_LENGTH_EPS = 1e-6


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""Vanilla linear attention, https://arxiv.org/abs/2006.16236.

    Features are :math:`\mathrm{elu}(x) + 1`, the normaliser is
    :math:`z_i = f(q_i) \cdot \sum_j f(k_j) + 10^{-6}`. The 1e-6 is from the authors'
    code.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """
    return _attend(linear_features, q, k, v, eps=1e-6)


def linear_features(q: Tensor, k: Tensor) -> Features:
    """Features of :func:`linear_attention`, shape (B, heads, N, d)."""
    kappa = KAPPAS['elu+1']
    return kappa(at_least_float32(q)), kappa(at_least_float32(k))


def enhanced_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""ReLU linear attention of EfficientViT, https://arxiv.org/abs/2205.14756.

    Features are :math:`\max(x, 0)`, the normaliser is
    :math:`z_i = f(q_i) \cdot \sum_j f(k_j) + 10^{-15}`, the small number again from the
    authors' code. What enhances it is a depthwise convolution beside it. The tokens of
    several scales that later versions of the paper add are left out.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """
    return _attend(relu_features, q, k, v, eps=1e-15)


def relu_features(q: Tensor, k: Tensor) -> Features:
    """Features of :func:`enhanced_attention`, shape (B, heads, N, d)."""
    return at_least_float32(q).relu(), at_least_float32(k).relu()


def focused_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    r"""Focused linear attention of FLatten Transformer, https://arxiv.org/abs/2308.00442.

    Features are, with :math:`x = (\max(q_i, 0) + 10^{-6}) / \mathrm{softplus}(s)`,

    .. math::
        f(q_i) = \frac{\lVert x \rVert}{\lVert x^3 \rVert} x^3

    where :math:`x^3` is by element, and the same for keys. The normaliser is
    :math:`z_i = f(q_i) \cdot \sum_j f(k_j) + 10^{-6} N`. As in the authors' code, which
    the scale s and the two small numbers are from, lengths are over the channels of all
    heads. Their learnt position encoding of the keys is left out: it fixes the number
    of tokens.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.
        scale (Tensor): s, learnt, for each channel: shape (heads, 1, d).

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """

    def features(q: Tensor, k: Tensor) -> Features:
        return focused_features(q, k, scale)

    # 1e-6 for each token. PyTorch's older ONNX exporter takes k.shape[-2] for constant.
    eps = (0 * at_least_float32(k[..., :1]) + 1e-6).sum(dim=-2, keepdim=True)
    return _attend(features, q, k, v, eps)


def focused_features(q: Tensor, k: Tensor, scale: Tensor) -> Features:
    """Features of :func:`focused_attention`, shape (B, heads, N, d)."""

    def length(x: Tensor) -> Tensor:
        return x.square().sum(dim=(-3, -1), keepdim=True).sqrt()

    def focus(x: Tensor) -> Tensor:
        x = (at_least_float32(x).relu() + 1e-6) / F.softplus(at_least_float32(scale))
        # Cubes of a unit vector have the same direction and cannot overflow.
        cubes = (x / length(x)) ** 3
        return length(x) / length(cubes) * cubes

    return focus(q), focus(k)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""Efficient attention, https://arxiv.org/abs/1812.01243.

    Features of a query are its softmax over the d channels, those of the keys the
    softmax of each channel over the N tokens. So no normaliser is needed.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """
    return _attend(efficient_features, q, k, v)


def efficient_features(q: Tensor, k: Tensor) -> Features:
    """Features of :func:`efficient_attention`, shape (B, heads, N, d)."""
    return at_least_float32(q).softmax(dim=-1), at_least_float32(k).softmax(dim=-2)


def hydra_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""Hydra attention, https://arxiv.org/abs/2209.07484.

    There are as many heads as channels, so all products are by element, ⊙:

    .. math::
        y_i = \hat q_i \odot \sum_j \hat k_j \odot v_j

    where :math:`\hat x` is x over its length (the cosine kernel), with 1e-6 added to
    the squared length. The heads of the arguments are joined before: lengths are over
    all channels. There is no normaliser.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """
    with use_autocast(q.device.type, None):
        q_unit, k_unit = hydra_features(q, k)
        return (q_unit * _channel_sums(k_unit, v)).to(v.dtype)


def hydra_features(q: Tensor, k: Tensor) -> Features:
    """Features of :func:`hydra_attention`, shape (B, heads, N, d)."""
    return _unit(at_least_float32(q), (-3, -1)), _unit(at_least_float32(k), (-3, -1))


def hydra_kv_buffer(k_features: Tensor, v: Tensor) -> Tensor:
    """KV buffer of :func:`hydra_attention`: diagonal, as each channel is a head."""
    with use_autocast(v.device.type, None):
        return torch.diag_embed(_channel_sums(k_features, v).squeeze(-2))


def linear_angular_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""Linear-angular attention of Castling-ViT, https://arxiv.org/abs/2211.10526.

    The angle between a query and a key, developed up to its linear term:

    .. math::
        u_i = \tfrac{1}{2} v_i + \tfrac{1}{\pi} \hat q_i \sum_j \hat k_j^\top v_j,
        \qquad y_i = \hat u_i

    where :math:`\hat x` is x over its length in each head, with 1e-6 added to the
    squared length. As in the authors' code, the constant term weighs a token's own
    value, and the result is normalised instead of divided by a sum. A depthwise
    convolution stands for the terms of higher order. The masked softmax attention
    beside it, which training fades out, is left out.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``.
    """
    with use_autocast(q.device.type, None):
        q_unit, k_unit = linear_angular_features(q, k)
        u = 0.5 * at_least_float32(v) + q_unit @ kv_buffer(k_unit, v) / math.pi
        return _unit(u, -1).to(v.dtype)


def linear_angular_features(q: Tensor, k: Tensor) -> Features:
    """Features of :func:`linear_angular_attention`, shape (B, heads, N, d)."""
    return _unit(at_least_float32(q), -1), _unit(at_least_float32(k), -1)


def kv_buffer(k_features: Tensor, v: Tensor) -> Tensor:
    r"""The sum over all tokens of :math:`f(k_j)^\top v_j`.

    Args:
        k_features (Tensor): features of the keys, shape (B, heads, N, d).
        v (Tensor): values, same shape.

    Returns:
        Tensor: shape (B, heads, d, d), at least float32.
    """
    with use_autocast(v.device.type, None):
        return at_least_float32(k_features).transpose(-2, -1) @ at_least_float32(v)


def _attend(
    features: Callable[[Tensor, Tensor], Features],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    eps: float | Tensor | None = None,
) -> Tensor:
    """Multiply with the buffer, and divide by the sum of similarities plus eps."""
    with use_autocast(q.device.type, None):
        q_features, k_features = features(q, k)
        y = q_features @ kv_buffer(k_features, v)
        if eps is not None:
            sums = k_features.sum(dim=-2, keepdim=True)
            y = y / (q_features @ sums.transpose(-2, -1) + eps)
        return y.to(v.dtype)


def _channel_sums(k_features: Tensor, v: Tensor) -> Tensor:
    return (k_features * at_least_float32(v)).sum(dim=-2, keepdim=True)


def _unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    return x * (x.square().sum(dim=dim, keepdim=True) + _LENGTH_EPS).rsqrt()
