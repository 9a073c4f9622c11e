import itertools

import pytest
import torch

from mmravlt.ops import (
    KAPPAS,
    rala,
    rala_kv_buffer,
    rala_reference,
    rope2d_rotate,
    rope2d_table,
)

VARIANTS = [
    dict(kappa=kappa, kv_augmentation=kv_augmentation)
    for kappa, kv_augmentation in itertools.product(KAPPAS, (True, False))
]
LITERAL_KAPPAS = {
    'elu+1': lambda x: torch.where(x > 0, x + 1, x.exp()),
    'relu': lambda x: torch.where(x > 0, x, 0),
    'softmax': lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
}


def weighted_keys(q, k, kappa, kv_augmentation):
    """κ(q), and α_j κ(k_j) with α_j = N a_j, equation 4."""
    q, k = LITERAL_KAPPAS[kappa](q), LITERAL_KAPPAS[kappa](k)
    if not kv_augmentation:
        return q, k
    n, d = q.shape[-2:]
    global_query = q.sum(-2, keepdim=True) / n
    return q, (n * torch.softmax(global_query @ k.mT / d**0.5, -1)).mT * k


def rala_as_in_the_paper(q, k, v, table, kappa='elu+1', kv_augmentation=True):
    """Equations 2 to 4 with the N×N similarities written out."""
    n = q.shape[-2]
    q, k = weighted_keys(q, k, kappa, kv_augmentation)
    denominator = (q @ k.mT).mean(-1, keepdim=True) + 1e-6
    similarity = rope2d_rotate(q, table) @ rope2d_rotate(k, table).mT
    return similarity @ v / n / denominator


def make_qkv(device, height, width, head_dim, batch=2, heads=3):
    shape = (batch, heads, height * width, head_dim)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in 'qkv')
    return q, k, v, rope2d_table(height, width, head_dim, q.device)


# On a CPU, the largest map is worked on in several parts where heads have 64 or 96.
@pytest.mark.parametrize('height,width', [(1, 1), (1, 7), (31, 33), (10, 3)])
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


def in_float64(q, k, v):
    return [x.detach().double().requires_grad_() for x in (q, k, v)]


def test_gradients_are_exact_in_float64():
    q, k, v, table = make_qkv('cpu', 3, 4, 8, batch=1, heads=2)
    assert torch.autograd.gradcheck(lambda *x: rala(*x, table), in_float64(q, k, v))


@pytest.mark.parametrize('height,width', [(1, 1), (1, 7), (9, 11)])
@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_variants_equal_their_quadratic_form(height, width, options):
    *qkv, table = make_qkv('cpu', height, width, 20)
    qkv = in_float64(*qkv)
    y, expected = (
        rala(*qkv, table, **options),
        rala_as_in_the_paper(*qkv, table, **options),
    )
    cotangent = torch.randn_like(y)
    grads = torch.autograd.grad(y, qkv, cotangent)
    expected_grads = torch.autograd.grad(expected, qkv, cotangent)
    assert (y - expected).abs().max() <= 1e-12 * expected.abs().max()
    scale = max(grad.abs().max() for grad in expected_grads)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert (grad - expected_grad).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize('height,width', [(1, 1), (1, 7), (9, 11)])
@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_kv_buffer_is_what_rotated_queries_are_multiplied_with(height, width, options):
    *qkv, table = make_qkv('cpu', height, width, 20)
    qkv = in_float64(*qkv)
    buffer = rala_kv_buffer(*qkv, table, **options)
    q, keys = weighted_keys(*qkv[:2], **options)
    expected = sum(  # equation 3, divided by N
        rope2d_rotate(keys, table)[..., j, :, None] * qkv[2][..., j, None, :]
        for j in range(height * width)
    ) / (height * width)
    assert buffer.shape == (2, 3, 20, 20)
    assert (buffer - expected).abs().max() <= 1e-12 * expected.abs().max()
    y = rope2d_rotate(q, table) @ buffer / (q @ keys.mean(-2)[..., None] + 1e-6)
    expected = rala(*qkv, table, **options)
    assert (y - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_kv_buffer_is_float32_under_autocast(device):
    q, k, v, table = make_qkv(device, 5, 7, 64)
    expected = rala_kv_buffer(q, k, v, table)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(rala_kv_buffer(q, k, v, table), expected)


@pytest.mark.parametrize('function', [rala, rala_reference, rala_kv_buffer])
def test_unknown_kernel_functions_are_refused(function):
    with pytest.raises(ValueError, match="kappa is 'exp'; give one of 'elu.1', 'relu'"):
        function(*make_qkv('cpu', 2, 3, 4), kappa='exp')


@pytest.mark.parametrize('dtype,error', [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_input_costs_only_its_own_rounding(device, dtype, error):
    q, k, v, table = make_qkv(device, 32, 40, 64)
    half = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    exact = [x.detach().float().requires_grad_() for x in half]
    y, expected = rala(*half, table), rala(*exact, table)
    cotangent = torch.randn_like(y)
    grads = torch.autograd.grad(y, half, cotangent)
    expected_grads = torch.autograd.grad(expected, exact, cotangent.float())
    results = zip((y, *grads), (expected, *expected_grads), strict=True)
    for result, expected in results:
        assert result.dtype == dtype
        assert (result.float() - expected).abs().max() <= error * expected.abs().max()


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
