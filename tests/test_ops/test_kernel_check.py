"""A kernel that is wrong, or fails, costs speed and one warning, but no training."""

import warnings

import pytest
import torch

from mmravlt import doctor
from mmravlt.ops import (
    kernel_check,
    rala,
    rala_kernel,
    rala_triton,
    use_rala_kernel,
)

from .kernel_faults import (
    KERNELS,
    NO_OVERFLOWS,
    RIGHT,
    assert_right,
    every_fault,
    fail,
    found_right,
    kernels_apply,
    make_input,
    spoil,
    throwing,
    with_gradients,
)

__all__ = ['found_right', 'kernels_apply']  # fixtures
pytestmark = [pytest.mark.usefixtures('kernels_apply'), NO_OVERFLOWS]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_kernels_are_found_right(device, dtype, monkeypatch):
    monkeypatch.setattr(kernel_check, '_launches', KERNELS)
    q, k, v, *_ = make_input(device, dtype)
    assert rala_kernel(q, k, v) == ('triton', 'it applies')


def test_right_kernels_are_checked_once_and_used(device, monkeypatch):
    calls = spoil(monkeypatch, 'forward', lambda *results: results)
    arguments = make_input(device)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='The fused Triton')
        assert_right(with_gradients(rala, *arguments), arguments)
        assert_right(with_gradients(rala, *arguments), arguments)
    assert len(calls) == 1 + 2
    assert rala_kernel(*arguments[:3]) == ('triton', 'it applies')


@every_fault
def test_wrong_kernels_are_left_with_one_warning(
    device, name, change, said, monkeypatch
):
    calls = spoil(monkeypatch, name, change)
    arguments = make_input(device)
    with pytest.warns(RuntimeWarning, match=said) as seen:
        assert_right(with_gradients(rala, *arguments), arguments)
        assert_right(with_gradients(rala, *arguments), arguments)
    assert len([w for w in seen if 'fused Triton' in str(w.message)]) == 1
    assert len(calls) == 1
    kernel, reason = rala_kernel(*arguments[:3])
    assert kernel == 'torch'
    assert 'float32 with heads of 32 channels' in reason


@every_fault
def test_who_asks_for_wrong_kernels_gets_an_error(
    device, name, change, said, monkeypatch
):
    spoil(monkeypatch, name, change)
    use_rala_kernel('triton')
    arguments = make_input(device)[:4]
    warnings.filterwarnings('error', message='The fused Triton')
    for function in (rala, rala_triton.rala, rala):
        with pytest.raises(RuntimeError, match=f'asked for, do not apply: {said}'):
            function(*arguments)


@pytest.mark.parametrize('name', ['forward', 'backward'])
@pytest.mark.parametrize('compiled', [False, True])
def test_kernels_that_fail_later_are_left_with_one_warning(
    device, name, compiled, monkeypatch, found_right
):
    calls = spoil(monkeypatch, name, fail, after=1)
    arguments = make_input(device)
    function = torch.compile(rala, backend='aot_eager', fullgraph=True)
    function = function if compiled else rala
    assert_right(with_gradients(function, *arguments), arguments)
    with pytest.warns(RuntimeWarning, match='they fail on .* PassManager') as seen:
        for _ in range(3):
            assert_right(with_gradients(function, *arguments), arguments)
    assert len([w for w in seen if 'fused Triton' in str(w.message)]) == 1
    assert len(calls) == 2
    assert len(found_right) == 1


@pytest.mark.parametrize('name', ['forward', 'backward'])
def test_kernels_asked_for_by_name_fail_aloud(device, name, monkeypatch, found_right):
    spoil(monkeypatch, name, fail)
    use_rala_kernel('triton')
    with pytest.raises(RuntimeError, match='asked for, .* PassManager::run failed'):
        with_gradients(rala, *make_input(device))


def test_other_types_and_head_sizes_keep_their_kernels(
    device, monkeypatch, found_right
):
    spoil(monkeypatch, 'forward', fail)
    with pytest.warns(RuntimeWarning, match='in float32 with heads of 32 channels'):
        rala(*make_input(device)[:4])
    assert rala_kernel(*make_input(device)[:3])[0] == 'torch'
    assert rala_kernel(*make_input(device, torch.float16)[:3])[0] == 'triton'
    q = torch.randn(1, 1, 6, 64, device=device)
    assert rala_kernel(q, q, q)[0] == 'triton'


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate'),
        RuntimeError('Triton Error [CUDA]: out of memory'),
        MemoryError(),
    ],
)
def test_too_little_memory_is_no_fault_of_the_kernels(device, error, monkeypatch):
    launch = kernel_check._launches['forward']
    for good_calls in (0, 1):  # in the check, then later
        spoil(monkeypatch, 'forward', throwing(error), after=good_calls)
        with warnings.catch_warnings(), pytest.raises(type(error)):
            warnings.filterwarnings('error', message='The fused Triton')
            rala(*make_input(device)[:4])
        monkeypatch.setitem(kernel_check._launches, 'forward', launch)
        assert rala_kernel(*make_input(device)[:3])[0] == 'triton'
        kernel_check._faults.clear()


def test_a_lost_gpu_is_named_with_the_way_out(monkeypatch):
    """After such an error no call of CUDA works, PyTorch's neither."""
    error = RuntimeError('CUDA error: an illegal memory access was encountered')
    monkeypatch.setattr(torch.cuda, 'synchronize', throwing(error))
    monkeypatch.setattr(kernel_check, '_is_capturing', lambda _: False)
    with pytest.raises(RuntimeError, match='no longer .* start with MMRAVLT_RALA=to'):
        kernel_check._describe(error, (torch.device('cuda:0'), torch.float32, 64))


def test_what_cannot_be_checked_is_not_used(device, monkeypatch, found_right):
    monkeypatch.setattr(kernel_check, '_is_capturing', lambda _: True)
    arguments = make_input(device)
    with pytest.warns(RuntimeWarning, match='CUDA graph is captured; call the model'):
        assert_right(with_gradients(rala, *arguments), arguments)
    assert not found_right


@pytest.mark.filterwarnings('ignore:The fused Triton kernels:RuntimeWarning')
@pytest.mark.parametrize('spoilt', [False, True])
def test_the_doctor_says_what_the_check_found(device, spoilt, monkeypatch):
    if device.type == 'cpu':
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)

    def kernel_errors(device, dtype, head_dim, heads=1):
        if spoilt and dtype == torch.float16:
            fail()
        return RIGHT

    monkeypatch.setattr(kernel_check, 'kernel_errors', kernel_errors)
    said = doctor._rala_kernel()
    assert said.startswith('the fused Triton kernels, compared with the equations')
    assert 'of 96 channels float32 1e-06' in said
    assert ('float16 1e-06, bfloat16 1e-06' in said) != spoilt
    for head_dim in (64, 96):
        reason = f'in float16 with heads of {head_dim} channels: RuntimeError: Pass'
        assert (reason in said) == spoilt
