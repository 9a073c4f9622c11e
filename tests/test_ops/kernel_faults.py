"""Kernels that are wrong or fail, for the tests of what happens then."""

import pytest
import torch
from torch import library

pytest.importorskip('triton')
if not hasattr(library, 'custom_op'):
    pytest.skip('torch has no custom_op yet', allow_module_level=True)

from mmravlt.ops import (  # noqa: E402
    kernel_check,
    kernels,
    rala_reference,
    rala_triton,
    rope2d_table,
)

HEAD_DIM = 32
KERNELS = dict(kernel_check._launches)
RIGHT = [[1e-6] * 4] * 2
# The interpreter computes exp(x) also where x + 1 is taken.
NO_OVERFLOWS = pytest.mark.filterwarnings('ignore:overflow encountered:RuntimeWarning')


@pytest.fixture
def kernels_apply(device, monkeypatch):
    """Where the tests run, and nothing is known of them; PyTorch stands in for them."""
    if device.type == 'cpu' and not rala_triton.INTERPRETED:
        pytest.skip("Triton's interpreter is off, because there is a GPU")
    monkeypatch.setattr(kernels, '_DEVICES', ('cpu', 'cuda'))
    monkeypatch.setattr(kernels, '_wanted', 'auto')
    monkeypatch.setattr(kernel_check, '_faults', {})
    monkeypatch.setattr(kernel_check, '_failed', ())
    for name, function in kernel_check._IN_PYTORCH.items():
        monkeypatch.setitem(kernel_check._launches, name, function)
    torch._dynamo.reset()


@pytest.fixture
def found_right(monkeypatch):
    """A check that costs nothing; its number of runs is the length."""
    checks = []
    monkeypatch.setattr(
        kernel_check, 'kernel_errors', lambda *key: checks.append(key) or RIGHT
    )
    return checks


def make_input(device, dtype=torch.float32):
    maps = torch.randn(1, 6, 4, 1, HEAD_DIM, device=device).to(dtype)
    q, k, v, dy = (x.transpose(1, 2) for x in maps.unbind(2))
    return q, k, v, rope2d_table(2, 3, HEAD_DIM, device), dy


def with_gradients(function, q, k, v, table, dy):
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = function(*inputs, table)
    return y.detach(), *torch.autograd.grad(y, inputs, dy)


def assert_right(results, arguments):
    for x, true in zip(
        results, with_gradients(rala_reference, *arguments), strict=True
    ):
        assert (x - true).abs().max() <= 1e-5 * true.abs().max()


def spoil(monkeypatch, name, change, after=0):
    """Change what a pass returns, or raise an error, after so many good calls."""
    launch, calls = kernel_check._launches[name], []

    def spoilt(*tensors):
        calls.append(name)
        results = launch(*tensors)
        return change(*results) if len(calls) > after else results

    monkeypatch.setitem(kernel_check._launches, name, spoilt)
    return calls


def throwing(error):
    def throw(*_):
        raise error

    return throw


fail = throwing(RuntimeError('PassManager::run failed'))


def wrong_dk(dq, dk, dv):
    return dq, 1.1 * dk, dv


def no_number(y, *summaries):
    return y * float('nan'), *summaries


every_fault = pytest.mark.parametrize(
    'name,change,said',
    [
        ('forward', fail, 'they fail on .* channels: RuntimeError: PassManager::run'),
        ('backward', fail, 'they fail on .* channels: RuntimeError: PassManager::run'),
        ('backward', wrong_dk, 'they are wrong on .* errors of y, dq, dk, dv are'),
        ('forward', no_number, 'they are wrong on .* nan'),
    ],
)
