"""A kernel that is wrong, or fails, costs speed and one warning, but no training."""

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import library
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip('triton')
if not hasattr(library, 'custom_op'):
    pytest.skip('torch has no custom_op yet', allow_module_level=True)

from mmravlt import doctor  # noqa: E402
from mmravlt.ops import (  # noqa: E402
    kernel_check,
    kernels,
    rala,
    rala_kernel,
    rala_reference,
    rala_triton,
    rope2d_table,
    use_rala_kernel,
)

HEAD_DIM = 32
KERNELS = dict(kernel_check._launches)
RIGHT = [[1e-6] * 4] * 2
# The interpreter computes exp(x) also where x + 1 is taken.
pytestmark = pytest.mark.filterwarnings('ignore:overflow encountered:RuntimeWarning')


@pytest.fixture(autouse=True)
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
