"""The enhanced linear attention of L2ViT.

Origin: "The Linear Attention Resurrection in Vision Transformer",
https://arxiv.org/abs/2501.16182, as the authors' release computes it
(https://github.com/ChuanyangZheng/L2ViT): there the denominator is at least 100.
"""

from torch import Tensor

from .runtime import at_least_float32, use_autocast

_LEAST_DENOMINATOR = 100.0


def l2vit_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    r"""Attend from every token to every other in time linear in their number.

    With :math:`q_i` and :math:`k_j` standing for :math:`\mathrm{relu}(q_i)` and
    :math:`\mathrm{relu}(k_j)`, and a learnt temperature t of each head:

    .. math::
        y_i = \frac{t \, q_i \sum_j k_j^\top v_j}
                   {\max\big(q_i \cdot \sum_j k_j, 100\big)}

    Args:
        q (Tensor): queries before the ReLU, shape (B, heads, N, d).
        k (Tensor): keys before the ReLU, same shape.
        v (Tensor): values, same shape.
        temperature (Tensor): shape (heads, 1, 1).

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``. Everything is computed
        at least in float32, under autocast too.
    """
    out_dtype = v.dtype
    with use_autocast(q.device.type, None):
        q, k, v, temperature = map(at_least_float32, (q, k, v, temperature))
        q, k = q.relu(), k.relu()
        k_sum = k.sum(dim=-2, keepdim=True)
        denominator = (q @ k_sum.transpose(-2, -1)).clamp(min=_LEAST_DENOMINATOR)
        # The temperature multiplies a d×d matrix, which is smaller than the result.
        buffer = temperature * (k.transpose(-2, -1) @ v)
        return (q @ buffer / denominator).to(out_dtype)
