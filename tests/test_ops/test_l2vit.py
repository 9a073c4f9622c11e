"""Linear attention of L2ViT equals its equation, written out token by token."""

import pytest
import torch

from mmravlt.ops import l2vit_attention


def literal(q, k, v, temperature):
    """Every weight of every pair of tokens."""
    weights = q.clamp(min=0) @ k.clamp(min=0).mT  # B, heads, N, N
    sums = weights.sum(-1, keepdim=True)
    return temperature * weights / torch.where(sums > 100, sums, 100.0) @ v


def inputs(batch, heads, n, d, dtype=torch.float64, scale=1.0):
    q, k, v = (torch.randn(batch, heads, n, d, dtype=torch.float64) for _ in range(3))
    temperature = torch.rand(heads, 1, 1, dtype=torch.float64) + 0.5
    return [x.to(dtype).requires_grad_() for x in (scale * q, k, v, temperature)]


# With few tokens or small queries the denominator is 100, with many it is the sum.
@pytest.mark.parametrize('scale', [0.1, 1.0, 5.0])
@pytest.mark.parametrize(
    'shape', [(1, 1, 1, 4), (2, 3, 35, 8), (1, 2, 197, 16), (2, 1, 50, 32)], ids=str
)
def test_outputs_and_gradients_are_those_of_the_equation(shape, scale):
    tensors = inputs(*shape, scale=scale)
    direction = torch.randn(shape, dtype=torch.float64)
    results = []
    for function in (l2vit_attention, literal):
        y = function(*tensors)
        gradients = torch.autograd.grad((y * direction).sum(), tensors)
        results.append((y, *gradients))
    for fast, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-10, atol=1e-12)


def test_the_denominator_is_the_sum_or_100():
    q, v = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    one = torch.ones(2, 1, 1)
    few = l2vit_attention(q, q, v, one)  # the sum is 3 × 4
    torch.testing.assert_close(few, torch.full_like(few, 12 / 100))
    many = l2vit_attention(10 * q, q, v, one)  # the sum is 120
    torch.testing.assert_close(many, torch.ones_like(many))
    assert not l2vit_attention(-q, q, v, one).any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_rounds_only_its_arguments_and_the_result(dtype):
    # A sum over 4096 keys, which float16 could neither hold nor add up.
    tensors = inputs(1, 2, 4096, 16, dtype, scale=20)
    y = l2vit_attention(*tensors)
    assert y.dtype == dtype and y.isfinite().all()
    expected = literal(*(x.double() for x in tensors))
    torch.testing.assert_close(
        y.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6
    )


def test_autocast_does_not_lower_the_precision():
    tensors = inputs(2, 2, 100, 8, torch.float32)
    expected = l2vit_attention(*tensors)
    with torch.autocast('cpu', torch.bfloat16):
        y = l2vit_attention(*tensors)
    assert torch.equal(y, expected)
