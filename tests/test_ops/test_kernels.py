import sys

import pytest
import torch

from mmravlt.ops import kernels, rala, rala_kernel, rope2d_table, use_rala_kernel


@pytest.fixture(autouse=True)
def wanted_is_restored(monkeypatch):
    monkeypatch.setattr(kernels, '_wanted', 'auto')


@pytest.fixture
def cpu_has_kernels(monkeypatch):
    """As if it were a GPU; nothing is computed there."""
    monkeypatch.setattr(kernels, '_DEVICES', ('cpu',))


def make_qkv(device, dtype=torch.float32, head_dim=64):
    return torch.randn(3, 1, 2, 12, head_dim, device=device).to(dtype)


def test_elsewhere_than_on_a_gpu_pytorch_computes_rala():
    assert rala_kernel(*make_qkv('cpu')) == ('torch', 'device cpu')


def test_the_triton_kernel_is_never_a_silent_wish():
    use_rala_kernel('triton')
    qkv = make_qkv('cpu')
    with pytest.raises(RuntimeError, match='do not apply: device cpu. Choose auto'):
        rala(*qkv, rope2d_table(3, 4, 64, qkv.device))


@pytest.mark.parametrize(
    'options,reason',
    [
        (dict(kappa='relu'), 'kappa relu'),
        (dict(kv_augmentation=False), 'no KV augmentation'),
    ],
)
def test_variants_of_rala_go_to_pytorch(options, reason, cpu_has_kernels):
    qkv = make_qkv('cpu')
    assert rala_kernel(*qkv, **options) == ('torch', reason)
    use_rala_kernel('triton')
    with pytest.raises(RuntimeError, match=f'do not apply: {reason}. Choose auto'):
        rala(*qkv, rope2d_table(3, 4, 64, qkv.device), **options)


def test_what_torchscript_traces_needs_no_triton():
    chosen = []

    def function(q):
        chosen.append(rala_kernel(q, q, q))
        return 2 * q

    torch.jit.trace(function, make_qkv('cpu')[0])
    assert ('torch', 'traced by TorchScript') in chosen


@pytest.mark.parametrize('name', ['cuda', '', 'Triton'])
def test_unknown_kernels_are_refused(name, monkeypatch):
    with pytest.raises(ValueError, match="'auto', 'triton', 'torch'"):
        use_rala_kernel(name)
    monkeypatch.setattr(kernels, '_wanted', name)  # as from the environment
    with pytest.raises(ValueError, match='MMRAVLT_RALA'):
        rala_kernel(*make_qkv('cpu'))


@pytest.mark.parametrize(
    'dtype,head_dim,reason',
    [
        (torch.float64, 64, 'float64'),
        (torch.float16, 24, 'head size 24'),
        (torch.float16, 160, 'head size 160'),
    ],
)
def test_what_the_triton_kernel_cannot_do_goes_to_pytorch(
    dtype, head_dim, reason, cpu_has_kernels
):
    pytest.importorskip('triton')
    assert rala_kernel(*make_qkv('cpu', dtype, head_dim)) == ('torch', reason)


def test_without_triton_pytorch_computes_rala(monkeypatch, cpu_has_kernels):
    monkeypatch.setitem(sys.modules, 'mmravlt.ops.rala_triton', None)
    kernel, reason = rala_kernel(*make_qkv('cpu'))
    assert kernel == 'torch'
    assert 'triton cannot be imported' in reason


@pytest.mark.parametrize('name,ran', [('auto', 'triton'), ('torch', 'torch')])
def test_the_switch_decides_on_a_gpu(name, ran):
    if not torch.cuda.is_available():
        pytest.skip('needs a GPU')
    use_rala_kernel(name)
    qkv = make_qkv('cuda')
    assert rala_kernel(*qkv)[0] == ran
    y = rala(*qkv, rope2d_table(3, 4, 64, qkv.device))
    expected = rala(*qkv.cpu(), rope2d_table(3, 4, 64, torch.device('cpu')))
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-5, atol=1e-5)
