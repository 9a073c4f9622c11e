"""The check of the kernels under compilers, exporters, autocast, threads and DDP."""

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmravlt.ops import (
    kernel_check,
    rala,
    rala_kernel,
    rala_reference,
    rope2d_table,
)

from .kernel_faults import (
    HEAD_DIM,
    NO_OVERFLOWS,
    RIGHT,
    fail,
    found_right,
    kernels_apply,
    make_input,
    spoil,
)

__all__ = ['found_right', 'kernels_apply']  # fixtures
pytestmark = [pytest.mark.usefixtures('kernels_apply'), NO_OVERFLOWS]


def inference(function):
    return torch.inference_mode()(function)


def autocast(function):
    def run(*arguments):
        with torch.autocast(arguments[0].device.type, dtype=torch.bfloat16):
            return function(*arguments)

    return run


def compiled(function):
    return torch.compile(function, backend='aot_eager', fullgraph=True)


@pytest.mark.parametrize('mode', [torch.no_grad(), inference, autocast, compiled])
@pytest.mark.parametrize('spoilt', [False, True])
def test_the_check_sees_both_passes_whatever_the_mode(
    device, mode, spoilt, monkeypatch
):
    calls = spoil(monkeypatch, 'backward', fail if spoilt else lambda *x: x)
    *inputs, _ = make_input(device)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        for _ in range(2):
            y = mode(rala)(*inputs)
    assert len(calls) == 1
    assert len([w for w in seen if 'fused Triton' in str(w.message)]) == spoilt
    assert torch.allclose(y, rala_reference(*inputs), rtol=1e-5, atol=1e-6)
    assert y.dtype == torch.float32


def test_the_compiler_turns_to_pytorch_once_a_fault_is_known(
    device, monkeypatch, found_right
):
    calls = spoil(monkeypatch, 'forward', fail)
    graphs = []

    def record(graph, _):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph

    function = torch.compile(rala, backend=record, fullgraph=True, dynamic=True)
    arguments = make_input(device)[:4]
    with pytest.warns(RuntimeWarning, match='fused Triton'):
        y = function(*arguments)
    assert torch.allclose(function(*arguments), y, rtol=1e-5, atol=1e-6)
    assert [any('mmravlt' in target for target in graph) for graph in graphs] == [
        True,
        False,
    ]
    assert len(calls) == 1


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators.append(function)
        return function(*args, **kwargs or {})


def test_nobody_notices_the_check(device):
    *inputs, _ = make_input(device)
    inputs[0].requires_grad_()
    state = torch.random.get_rng_state()
    before = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device('meta'), Recorder() as recorder:
            rala(*inputs)
        assert torch.get_default_dtype() == torch.float64
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_default_dtype(before[0])
        torch.use_deterministic_algorithms(False)
    assert set(kernel_check._faults.values()) == {None}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert recorder.operators == [torch.ops.mmravlt.rala.default]
    assert torch.get_default_device() == before[1]


def test_threads_that_come_at_once_share_one_check(device, monkeypatch):
    checks = []

    def slow_check(*key):
        checks.append(key)
        time.sleep(0.05)
        return RIGHT

    monkeypatch.setattr(kernel_check, 'kernel_errors', slow_check)
    q, k, v, *_ = make_input(device)
    assert in_threads(lambda: rala_kernel(q, k, v)[0]) == ['triton'] * 4
    assert len(checks) == 1


def test_threads_that_fail_at_once_share_one_warning(device, monkeypatch, found_right):
    together = threading.Barrier(4)

    def fail_together(*_):
        together.wait(10)
        fail()

    spoil(monkeypatch, 'forward', fail_together)
    inputs = make_input(device)[:4]
    expected = rala_reference(*inputs)
    with pytest.warns(RuntimeWarning, match='fused Triton') as seen:
        results = in_threads(lambda: rala(*inputs))
    assert len(seen) == 1
    for y in results:
        assert torch.allclose(y, expected, rtol=1e-5, atol=1e-6)


def in_threads(function):
    with ThreadPoolExecutor(4) as pool:
        return [f.result() for f in [pool.submit(function) for _ in range(4)]]


@pytest.mark.parametrize('spoilt', [False, True])
def test_distributed_training_goes_on(device, spoilt, monkeypatch):
    if device.type == 'cuda':
        pytest.skip('the backend for CPUs is used')
    calls = spoil(monkeypatch, 'backward', fail if spoilt else lambda *x: x)
    *inputs, _ = make_input(device)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        model = Model()
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            for _ in range(2):
                parallel(*inputs[:3]).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert model.scale.grad.isfinite()
    assert len(calls) == (1 if spoilt else 1 + 2)
    assert len([w for w in seen if 'fused Triton' in str(w.message)]) == spoilt


def test_symbols_are_not_checked(device, found_right):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        q = torch.empty(1, 1, 6, HEAD_DIM, device=device)
        assert rala_kernel(q, q, q)[0] == 'triton'
    assert not found_right


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, q, k, v):
        q = self.scale * q
        return rala(q, k, v, rope2d_table(2, 3, HEAD_DIM, q.device))


@pytest.mark.parametrize('strict', [False, True])
def test_exported_files_hold_operations_of_pytorch(device, strict, found_right):
    inputs = tuple(make_input(device)[:3])
    model = Model()
    assert rala_kernel(*inputs)[0] == 'triton'
    program = torch.export.export(model, inputs, strict=strict)
    assert 'mmravlt' not in str(program.graph)
    assert torch.allclose(program.module()(*inputs), model(*inputs), atol=1e-5)


def test_compiled_graphs_hold_the_kernels(device, found_right):
    graphs = []

    def record(graph, _):
        graphs.append(str(graph.graph))
        return graph

    torch.compile(Model(), backend=record, fullgraph=True)(*make_input(device)[:3])
    assert len(graphs) == 1
    assert 'mmravlt.rala' in graphs[0]
