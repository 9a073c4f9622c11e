"""Rank-Augmented Linear Attention (RALA), equations 3, 4 and 6 of the paper.

Origin: "Breaking the Low-Rank Dilemma of Linear Attention", CVPR 2025,
https://arxiv.org/abs/2411.07635. Where the paper and the released code differ
(scaled logits, RoPE, the 1e-6 in the denominator), this is the released code,
because the published weights were trained with it.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from .rope2d import Table, rope2d_rotate


def rala(q: Tensor, k: Tensor, v: Tensor, table: Table) -> Tensor:
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
        table (tuple[Tensor, Tensor]): from :func:`~mmravlt.ops.rope2d_table`
            for these N tokens.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``. Everything is
        computed at least in float32, under autocast too.
    """
    out_dtype = v.dtype
    wide = torch.promote_types(out_dtype, torch.float32)
    with _no_autocast(q.device.type):
        q, k, v = F.elu(q.to(wide)) + 1, F.elu(k.to(wide)) + 1, v.to(wide)
        global_query = q.mean(dim=-2, keepdim=True)
        logits = global_query @ k.mT * q.shape[-1] ** -0.5
        weights = logits.softmax(dim=-1)  # a: B, heads, 1, N
        denominator = q @ (weights @ k).mT + 1e-6
        buffer = (rope2d_rotate(k, table) * weights.mT).mT @ v  # B, heads, d, d
        return (rope2d_rotate(q, table) @ buffer / denominator).to(out_dtype)


def _no_autocast(device_type: str) -> AbstractContextManager:
    """Keep autocast away; some devices, such as meta, know none."""
    try:
        return torch.autocast(device_type, enabled=False)
    except RuntimeError:
        return nullcontext()
