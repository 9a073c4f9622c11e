import math

import pytest
import torch
import torch.nn.functional as F

from mmravlt.ops import (
    efficient_attention,
    enhanced_attention,
    focused_attention,
    hydra_attention,
    linear_angular_attention,
    linear_attention,
)
from mmravlt.ops.linear_attention import (
    hydra_features,
    hydra_kv_buffer,
    kv_buffer,
    relu_features,
)

HEADS, HEAD_DIM = 3, 8


def weighted(similarity, v, eps):
    """From N×N similarities, as softmax attention would."""
    return similarity / (similarity.sum(-1, keepdim=True) + eps) @ v


def literal_linear(q, k, v):
    return weighted((F.elu(q) + 1) @ (F.elu(k) + 1).mT, v, 1e-6)


def literal_enhanced(q, k, v):
    return weighted(q.relu() @ k.relu().mT, v, 1e-15)


def literal_efficient(q, k, v):
    return (q.softmax(-1) @ k.softmax(-2).mT) @ v


def literal_focused(q, k, v, scale):
    """On tokens of all C channels, as the authors' code has them."""

    def focus(x):
        tokens = x.transpose(1, 2).flatten(2)  # B, N, C
        tokens = (tokens.relu() + 1e-6) / F.softplus(scale.flatten())
        cubes = tokens**3
        cubes = cubes / cubes.norm(dim=-1, keepdim=True)
        focused = cubes * tokens.norm(dim=-1, keepdim=True)
        return focused.unflatten(2, (HEADS, HEAD_DIM)).transpose(1, 2)

    return weighted(focus(q) @ focus(k).mT, v, 1e-6 * q.shape[-2])


def literal_hydra(q, k, v):
    """One head per channel, each with its N×N similarities."""
    q, k, v = (x.transpose(1, 2).flatten(2) for x in (q, k, v))  # B, N, C
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    similarity = torch.einsum('bic,bjc->bcij', q, k)
    y = torch.einsum('bcij,bjc->bic', similarity, v)
    return y.unflatten(2, (HEADS, HEAD_DIM)).transpose(1, 2)


def literal_linear_angular(q, k, v):
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    identity = torch.eye(q.shape[-2], dtype=q.dtype)
    u = (identity / 2 + q @ k.mT / math.pi) @ v
    return u / (u.square().sum(-1, keepdim=True) + 1e-6).sqrt()


ATTENTIONS = {
    'linear': (linear_attention, literal_linear),
    'enhanced': (enhanced_attention, literal_enhanced),
    'efficient': (efficient_attention, literal_efficient),
    'focused': (focused_attention, literal_focused),
    'hydra': (hydra_attention, literal_hydra),
    'linear_angular': (linear_angular_attention, literal_linear_angular),
}
all_attentions = pytest.mark.parametrize('name', ATTENTIONS)


def make_inputs(name, tokens=35, dtype=torch.float32):
    shape = (2, HEADS, tokens, HEAD_DIM)
    inputs = [torch.randn(shape, dtype=dtype) for _ in 'qkv']
    if name == 'focused':
        inputs.append(torch.randn(HEADS, 1, HEAD_DIM, dtype=dtype))
    return inputs


def gradients(y, inputs, cotangent):
    return torch.autograd.grad(y, inputs, cotangent)


@all_attentions
@pytest.mark.parametrize('tokens', [1, 7, 35])
def test_equals_the_equation_written_out(name, tokens):
    attention, literal = ATTENTIONS[name]
    inputs = make_inputs(name, tokens, torch.float64)
    for x in inputs:
        x.requires_grad_()
    y, expected = attention(*inputs), literal(*inputs)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(
        gradients(y, inputs, cotangent),
        gradients(expected, inputs, cotangent),
        rtol=1e-8,
        atol=1e-10,
    )


@all_attentions
@pytest.mark.parametrize('dtype,error', [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_input_costs_only_its_own_rounding(name, dtype, error):
    attention = ATTENTIONS[name][0]
    inputs = [x.to(dtype) for x in make_inputs(name, 300)]
    y, expected = attention(*inputs), attention(*(x.float() for x in inputs))
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() <= error * expected.abs().max()


@all_attentions
def test_autocast_does_not_lower_the_precision(name):
    attention = ATTENTIONS[name][0]
    inputs = make_inputs(name)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = attention(*inputs)
    assert torch.equal(y, attention(*inputs))


@all_attentions
@pytest.mark.parametrize('scale', [6e4, -6e4, 0.0, 1e-7])
def test_any_size_of_half_precision_queries_stays_finite(name, scale):
    attention = ATTENTIONS[name][0]
    q, k, *rest = make_inputs(name, 500)
    q, k = (scale * x.abs().clamp(max=1) for x in (q, k))
    inputs = [x.half().requires_grad_() for x in (q, k, *rest)]
    y = attention(*inputs)
    assert y.isfinite().all()
    # In float32, in which they are computed: half precision may not hold them.
    wide = [x.detach().float().requires_grad_() for x in inputs]
    for gradient in gradients(attention(*wide).sum(), wide, None):
        assert gradient.isfinite().all()


def test_the_buffer_is_what_queries_are_multiplied_with():
    q, k, v = make_inputs('enhanced', dtype=torch.float64)
    q_features, k_features = relu_features(q, k)
    buffer = kv_buffer(k_features, v)
    assert buffer.shape == (2, HEADS, HEAD_DIM, HEAD_DIM)
    denominator = (q_features @ k_features.mT).sum(-1, keepdim=True)
    torch.testing.assert_close(
        q_features @ buffer, denominator * literal_enhanced(q, k, v)
    )


def test_the_buffer_of_hydra_is_diagonal():
    q, k, v = make_inputs('hydra', dtype=torch.float64)
    q_features, k_features = hydra_features(q, k)
    buffer = hydra_kv_buffer(k_features, v)
    torch.testing.assert_close(q_features @ buffer, literal_hydra(q, k, v))
    assert torch.equal(buffer, torch.diag_embed(buffer.diagonal(dim1=-2, dim2=-1)))
