import pytest
import torch

from mmravlt.ops import rala, rope2d_rotate, rope2d_table


def rala_as_in_the_paper(q, k, v, table):
    """Equations 2 to 4 with α_j = N a_j and the N×N similarities written out."""
    n, d = q.shape[-2:]
    q = torch.where(q > 0, q + 1, q.exp())
    k = torch.where(k > 0, k + 1, k.exp())
    global_query = q.sum(-2, keepdim=True) / n
    alpha = n * torch.softmax(global_query @ k.mT / d**0.5, -1)
    k = alpha.mT * k
    denominator = (q @ k.mT).mean(-1, keepdim=True) + 1e-6
    similarity = rope2d_rotate(q, table) @ rope2d_rotate(k, table).mT
    return similarity @ v / n / denominator


def make_qkv(device, height, width, head_dim, batch=2, heads=3):
    shape = (batch, heads, height * width, head_dim)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in 'qkv')
    return q, k, v, rope2d_table(height, width, head_dim, q.device)


@pytest.mark.parametrize('height,width', [(1, 1), (1, 7), (19, 28), (10, 3)])
@pytest.mark.parametrize('head_dim', [64, 96, 4])
def test_equals_the_quadratic_form_of_the_paper(device, height, width, head_dim):
    q, k, v, table = make_qkv(device, height, width, head_dim)
    y, expected = rala(q, k, v, table), rala_as_in_the_paper(q, k, v, table)
    cotangent = torch.randn_like(y)
    grads = torch.autograd.grad(y, (q, k, v), cotangent)
    expected_grads = torch.autograd.grad(expected, (q, k, v), cotangent)
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    # One scale for the three: with a single token those of q and k are zero.
    scale = max(grad.abs().max() for grad in expected_grads)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert (grad - expected_grad).abs().max() <= 1e-5 * scale


def test_gradients_are_exact_in_float64():
    q, k, v, table = make_qkv('cpu', 3, 4, 8, batch=1, heads=2)
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *x: rala(*x, table), doubles)


@pytest.mark.parametrize('dtype,error', [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_input_costs_only_its_own_rounding(device, dtype, error):
    q, k, v, table = make_qkv(device, 32, 40, 64)
    q, k, v = (x.detach().to(dtype) for x in (q, k, v))
    y = rala(q, k, v, table)
    expected = rala(q.float(), k.float(), v.float(), table)
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() <= error * expected.abs().max()


@pytest.mark.parametrize('scale', [30.0, -30.0])
def test_large_activations_in_half_precision_stay_finite(device, scale):
    q, k, v, table = make_qkv(device, 40, 50, 64)
    q, k = (scale * x.detach().abs().half() for x in (q, k))
    y = rala(q, k, v.detach().half(), table)
    assert y.isfinite().all()


def test_autocast_does_not_lower_the_precision(device):
    q, k, v, table = make_qkv(device, 20, 24, 64)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = rala(q, k, v, table)
    assert torch.equal(y, rala(q, k, v, table))
