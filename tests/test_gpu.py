"""What only a GPU can show, beside the tests elsewhere that run on a GPU, too.

``python -m benchmarks gpu`` runs all of them. They have been written without a GPU.
"""

import json

import pytest
import torch

from demo.shapes import write_shapes
from mmravlt.models import RAVLT
from mmravlt.ops import rala_reference, rope2d_table, use_rala_kernel

from .conftest import NEEDS_GPU
from .processes import ROOT, run_python

pytestmark = NEEDS_GPU
GPU = torch.device('cuda')
# In norm; half of the last bit of the type, and what float32 sums lose.
ERRORS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}
on_types = pytest.mark.parametrize('dtype', ERRORS)


@pytest.fixture(autouse=True)
def kernels():
    """Triton's kernels or an error, nothing else."""
    use_rala_kernel('triton')
    yield
    use_rala_kernel('auto')


def make_input(dtype, size, head_dim=64, heads=2, batch=2):
    """q, k, v, dy as they lie in a channels_last map, and the table."""
    shape = (batch, size[0] * size[1], 4, heads, head_dim)
    tensors = torch.randn(shape, device=GPU, dtype=dtype).unbind(2)
    return *(x.transpose(1, 2) for x in tensors), rope2d_table(*size, head_dim, GPU)


def fused_rala(*arguments):
    from mmravlt.ops.rala_triton import rala

    return rala(*arguments)


def with_gradients(function, q, k, v, dy, table):
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = function(*inputs, table)
    return y.detach(), *torch.autograd.grad(y, inputs, dy)


def error(x, expected):
    return ((x.double() - expected).norm() / expected.double().norm()).item()


def check_against_float64(*tensors):
    *tensors, table = tensors
    results = with_gradients(fused_rala, *tensors, table)
    doubles = [x.double() for x in tensors]
    expected = with_gradients(rala_reference, *doubles, table)
    for x, y in zip(results, expected, strict=True):
        assert error(x, y) <= ERRORS[x.dtype]


@on_types
@pytest.mark.parametrize('head_dim', [32, 48, 56, 64, 80, 96, 112, 128])
def test_every_head_size_is_exact(dtype, head_dim):
    check_against_float64(*make_input(dtype, (13, 21), head_dim))


@on_types
def test_first_stage_of_a_detector_is_exact(dtype):
    check_against_float64(*make_input(dtype, (200, 320), heads=1, batch=1))


@on_types
def test_memory_that_was_never_written_has_no_effect(dtype):
    junk = [torch.full((2**26,), float('nan'), device=GPU) for _ in range(8)]
    del junk
    check_against_float64(*make_input(dtype, (31, 17), 96))


def test_maps_of_more_than_2_to_the_31_elements_are_right_at_their_end():
    if torch.cuda.get_device_properties(GPU).total_memory < 40 * 2**30:
        pytest.skip('needs 40 GiB')
    # 6.6e9 elements in q, k, v and dy; 13 GB
    *tensors, table = make_input(torch.bfloat16, (400, 400), heads=10, batch=16)
    results = with_gradients(fused_rala, *tensors, table)
    use_rala_kernel('torch')
    last = [x[-1:].float() for x in tensors]
    expected = with_gradients(rala_reference, *last, table)
    for x, y in zip(results, expected, strict=True):
        assert error(x[-1:], y) <= ERRORS[torch.bfloat16]


def test_same_input_gives_the_same_bits():
    tensors = make_input(torch.bfloat16, (100, 160))
    first = with_gradients(fused_rala, *tensors)
    for _ in range(20):
        assert all(map(torch.equal, first, with_gradients(fused_rala, *tensors)))


def test_cuda_graph_replays_the_kernels():
    q, k, v, _, table = make_input(torch.bfloat16, (50, 80))
    expected = fused_rala(q, k, v, table)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fused_rala(q, k, v, table)
    y.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


def test_kernels_run_on_the_current_stream():
    q, k, v, _, table = make_input(torch.bfloat16, (50, 80))
    expected = fused_rala(q, k, v, table)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = fused_rala(q, k, v, table)
    stream.synchronize()
    assert torch.equal(y, expected)


def test_inductor_compiles_around_the_kernels():
    *tensors, table = make_input(torch.bfloat16, (25, 40))

    def function(q, k, v, table):
        return 2 * fused_rala(q + 1, k, v, table)

    compiled = torch.compile(function, fullgraph=True)
    results = with_gradients(compiled, *tensors, table)
    expected = with_gradients(function, *tensors, table)
    for x, y in zip(results, expected, strict=True):
        assert error(x, y.double()) <= ERRORS[torch.bfloat16]


@pytest.mark.parametrize('softmax_stages', [0, 2])
def test_backbone_and_its_gradients_are_those_of_pytorch(softmax_stages):
    kinds = (4 - softmax_stages) * ('rala',) + softmax_stages * ('softmax',)
    options = dict(norm_cfg=dict(type='BN'), drop_path_rate=0.0)
    model = RAVLT(arch='t', attention=kinds, **options).to(GPU)
    image = torch.randn(2, 3, 203, 317, device=GPU)
    found = {}
    for kernel in ('torch', 'triton'):
        use_rala_kernel(kernel)
        model.zero_grad()
        maps = model(image)
        sum(y.square().mean() for y in maps).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found[kernel] = [*(y.detach() for y in maps), *gradients]
    for x, y in zip(found['triton'], found['torch'], strict=True):
        if y.norm() > 0:
            assert error(x, y.double()) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_mask_rcnn_trains_in_fp16_with_falling_losses(launcher, tmp_path):
    """Alone, and as one process of a distributed training, whose norms are SyncBN."""
    write_shapes(tmp_path / 'data', num_train=64, num_val=4, size=128)
    torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=1', '--standalone']
    run_python(
        *(torchrun if launcher == 'pytorch' else []),
        *('tools/train.py', 'demo/mask_rcnn_ravlt_t_shapes.py', '--amp'),
        *('--launcher', launcher, '--data', tmp_path / 'data'),
        *('--work-dir', tmp_path / 'work', '--cfg-options'),
        *('train_cfg.max_epochs=2', 'default_hooks.logger.interval=1'),
        cwd=ROOT,
    )
    (records,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    records = map(json.loads, records.read_text().splitlines())
    losses = torch.tensor([r['loss'] for r in records if 'loss' in r])
    assert len(losses) == 32 and losses.isfinite().all()
    assert losses[-8:].mean() < losses[:8].mean()
