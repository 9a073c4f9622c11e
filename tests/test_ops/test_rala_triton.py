import pytest
import torch
from torch import library

pytest.importorskip('triton')
if not hasattr(library, 'custom_op'):
    pytest.skip('torch has no custom_op yet', allow_module_level=True)

from torch._dynamo.backends.common import aot_autograd  # noqa: E402

from mmravlt.ops import kernel_check, kernels, rala_triton  # noqa: E402
from mmravlt.ops.rala_triton import INTERPRETED, rala, unsupported_reason  # noqa: E402

FORWARD = torch.ops.mmravlt.rala.default
BACKWARD = torch.ops.mmravlt.rala_backward.default
# Of the largest value, 2^-8 for bfloat16 because the interpreter cuts bits off
# where a GPU rounds.
ERRORS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def the_kernels_run_or_raise(device, monkeypatch):
    monkeypatch.setattr(kernels, '_wanted', 'triton')
    monkeypatch.setattr(kernel_check, 'kernel_errors', lambda *_: [[0.0] * 4] * 2)
    if device.type == 'cpu' and not INTERPRETED:
        pytest.skip("Triton's interpreter is off, because there is a GPU")


def make_table(height, width, head_dim, device='cpu'):
    angles = 10000 ** -torch.linspace(0, 1, head_dim // 4, dtype=torch.float64)
    turns = [torch.arange(n)[:, None] * angles for n in (height, width)]
    parts = [torch.stack((t.cos(), t.sin()), -1) for t in turns]
    return tuple(part.float().to(device) for part in parts)


def make_input(device, size=(5, 9), head_dim=32, batch=1, heads=1, dtype=torch.float32):
    """q, k, v as they lie in a channels_last map, the table, and dy."""
    shape = (batch, size[0] * size[1], 4, heads, head_dim)
    q, k, v, dy = torch.randn(shape, device=device, dtype=dtype).unbind(2)
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in (q, k, v))
    return q, k, v, make_table(*size, head_dim, device), dy.transpose(1, 2)


def quadratic_form(q, k, v, table):
    """The equations in float64, with the N × N similarities written out."""
    rows, columns = (torch.view_as_complex(part.double()) for part in table)
    height, width, pairs = len(rows), len(columns), rows.shape[1]
    turns = torch.cat(
        (
            rows[:, None].expand(height, width, pairs),
            columns[None].expand(height, width, pairs),
        ),
        dim=-1,
    ).flatten(0, 1)

    def rotate(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns).flatten(-2)

    q = torch.where(q > 0, q + 1, q.exp())
    k = torch.where(k > 0, k + 1, k.exp())
    mean = q.mean(-2, keepdim=True)
    a = torch.softmax(mean @ k.mT / q.shape[-1] ** 0.5, -1)
    denominator = q @ (a @ k).mT + 1e-6
    return (rotate(q) @ rotate(k).mT * a) @ v / denominator


def with_gradients(function, q, k, v, table, dy):
    y = function(q, k, v, table)
    return y, *torch.autograd.grad(y, (q, k, v), dy)


def largest(x):
    return x.detach().abs().max().item()


@pytest.mark.parametrize('dtype', ERRORS)
@pytest.mark.parametrize(
    'size,head_dim,batch,heads',
    [
        ((1, 1), 32, 1, 2),
        ((1, 7), 100, 2, 1),
        ((5, 9), 64, 2, 1),
        ((13, 11), 36, 1, 3),
        ((13, 11), 96, 1, 1),
        ((33, 1), 128, 1, 1),
    ],
)
def test_equals_the_quadratic_form(device, size, head_dim, batch, heads, dtype):
    *inputs, table, dy = make_input(device, size, head_dim, batch, heads, dtype)
    y, *grads = with_gradients(rala, *inputs, table, dy)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected, *expected_grads = with_gradients(
        quadratic_form, *doubles, table, dy.double()
    )
    error = ERRORS[dtype]
    assert y.dtype == dtype
    assert largest(y - expected) <= error * largest(expected)
    # One scale for the three: with a single token those of q and k are zero.
    scale = max(map(largest, expected_grads))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == dtype
        assert largest(grad - expected_grad) <= error * scale


@pytest.mark.parametrize('factor,every,shift', [(3, 1, 0), (3, 2, -15), (1, 1, -8)])
def test_each_result_is_exact_on_its_own_scale(device, factor, every, shift):
    """What is too small to show beside the rest must be right, too.

    With few dominant keys, the mean query's own gradient counts. With small κ(q),
    denominators come near 1e-6, and only then does it matter how large the weights
    are. The last key, alone in its block, has the largest weight.
    """
    q, k, v, table, dy = make_input(device, (3, 11), heads=2)
    with torch.no_grad():
        q.mul_(factor)[:, :, ::every].add_(shift)
        k.mul_(factor)[:, :, -1].add_(2)
    results = with_gradients(rala, q, k, v, table, dy)
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = with_gradients(quadratic_form, *doubles, table, dy.double())
    for x, y in zip(results, expected, strict=True):
        assert largest(x - y) <= 1e-5 * largest(y)


@pytest.mark.parametrize(
    'layout', ['heads first', 'channels first', 'a batch repeated']
)
def test_takes_every_layout_of_its_inputs(device, layout):
    *inputs, table, dy = make_input(device, (3, 14), 36, batch=2, heads=2)
    if layout == 'a batch repeated':
        inputs = [x[:1].expand(2, -1, -1, -1) for x in inputs]
    contiguous = [x.detach().contiguous().requires_grad_() for x in inputs]
    if layout == 'channels first':
        inputs = [x.mT.contiguous().mT for x in inputs]
    elif layout == 'heads first':
        dy = dy.mT.contiguous().mT
    others = [x.detach().requires_grad_() for x in inputs]
    expected = with_gradients(rala, *contiguous, table, dy.contiguous())
    # A GPU adds in another order where memory is read in another order.
    error = 0.0 if INTERPRETED else 1e-6
    for x, y in zip(with_gradients(rala, *others, table, dy), expected, strict=True):
        assert largest(x - y) <= error * largest(y)


def test_takes_the_expanded_gradient_of_a_sum(device):
    q, k, v, table, dy = make_input(device)
    expanded = torch.ones((), device=device).expand_as(dy)
    grads = with_gradients(rala, q, k, v, table, expanded)
    expected = with_gradients(rala, q, k, v, table, torch.ones_like(dy))
    for x, y in zip(grads, expected, strict=True):
        assert torch.allclose(x, y, rtol=0, atol=0 if INTERPRETED else 1e-6)


def test_results_lie_in_memory_as_in_a_channels_last_map(device):
    *inputs, table, dy = make_input(device, (2, 3), 36, batch=2, heads=3)
    for x in with_gradients(rala, *inputs, table, dy):
        assert x.shape == (2, 3, 6, 36)
        assert x.transpose(1, 2).is_contiguous()


def test_inputs_are_not_changed(device):
    *inputs, table, dy = make_input(device, (1, 7))
    before = [x.detach().clone() for x in (*inputs, *table, dy)]
    with_gradients(rala, *inputs, table, dy)
    assert all(map(torch.equal, before, (*inputs, *table, dy)))


@pytest.mark.parametrize('head_dim', [64, 96])
@pytest.mark.parametrize('dtype', ERRORS)
def test_programs_that_share_a_head_equal_the_quadratic_form(
    device, monkeypatch, dtype, head_dim
):
    """With a key that has nearly all of the weight, and one that has most of it."""
    monkeypatch.setattr(rala_triton, '_multiprocessors', lambda _: 7)
    monkeypatch.setattr(rala_triton, '_FEW_BLOCKS', 1)
    *inputs, table, dy = make_input(device, (13, 11), head_dim, 1, 2, dtype)
    with torch.no_grad():
        _, k, _ = inputs
        k[:, 0, 70] *= 8
        k[:, 1, 140] += 1
    results = with_gradients(rala, *inputs, table, dy)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected = with_gradients(quadratic_form, *doubles, table, dy.double())
    for x, y in zip(results, expected, strict=True):
        assert largest(x - y) <= ERRORS[dtype] * largest(y)


def test_is_deterministic_and_the_number_of_programs_hardly_matters(
    device, monkeypatch
):
    # 160 tokens: 5 blocks.
    *inputs, table, dy = make_input(device, (16, 10), heads=2)
    monkeypatch.setattr(rala_triton, '_multiprocessors', lambda _: 1)
    one = with_gradients(rala, *inputs, table, dy)
    monkeypatch.setattr(rala_triton, '_multiprocessors', lambda _: 12)
    several = with_gradients(rala, *inputs, table, dy)
    again = with_gradients(rala, *inputs, table, dy)
    for x, y, z in zip(one, several, again, strict=True):
        assert torch.equal(y, z)
        assert largest(x - y) <= 1e-5 * largest(x)


@pytest.mark.filterwarnings('ignore:overflow encountered:RuntimeWarning')
@pytest.mark.parametrize('scale', [30.0, -30.0])
def test_large_activations_in_half_precision_stay_finite(device, scale):
    *inputs, v, table, dy = make_input(device, (7, 5), 64, dtype=torch.float16)
    q, k = ((scale * x.detach().abs()).requires_grad_() for x in inputs)
    for x in with_gradients(rala, q, k, v, table, dy):
        assert x.isfinite().all()


def test_one_bad_key_is_seen_everywhere(device):
    q, k, v, table, _ = make_input(device, (5, 9))
    with torch.no_grad():
        k[0, 0, 40, 3] = float('nan')
    assert rala(q, k, v, table).isnan().all()


def test_autocast_does_not_lower_the_precision(device):
    q, k, v, table, _ = make_input(device, (1, 7))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = rala(q, k, v, table)
    assert y.dtype == torch.float32
    assert torch.equal(y, rala(q, k, v, table))


def test_operators_are_registered_as_torch_wants_them(device):
    q, k, v, table, dy = make_input(device, (1, 7), heads=2)
    library.opcheck(FORWARD, (q, k, v, *table))
    inputs = [x.detach() for x in (q, k, v)]
    _, *summaries = FORWARD(*inputs, *table)
    library.opcheck(BACKWARD, (dy.detach(), *inputs, *table, *summaries))


def test_compiles_to_one_operator_each_way_for_all_sizes(device):
    graphs = []

    def record(graph, _):
        graphs.append([node.target for node in graph.graph.nodes])
        return graph

    backend = aot_autograd(fw_compiler=record, bw_compiler=record)
    compiled = torch.compile(rala, fullgraph=True, dynamic=True, backend=backend)
    # At first, different lengths have different values, or torch takes them for one.
    for size in ((3, 5), (5, 7)):
        arguments = make_input(device, size, heads=2)
        expected = with_gradients(rala, *arguments)
        results = with_gradients(compiled, *arguments)
        for x, y in zip(results, expected, strict=True):
            assert torch.equal(x, y)
            assert x.stride() == y.stride()
    forward, backward = graphs  # compiled once, for both sizes
    operators = [
        [
            t
            for t in graph
            if isinstance(t, torch._ops.OpOverload) and t.namespace != 'aten'
        ]
        for graph in (forward, backward)
    ]
    assert operators == [[FORWARD], [BACKWARD]]
    assert torch.ops.aten.clone.default not in forward + backward


@pytest.mark.parametrize(
    'change,reason',
    [
        (lambda q, k, v: (q.double(), k.double(), v.double()), 'float64'),
        (lambda q, k, v: (q, k, v.half()), 'mixed types'),
        (lambda q, k, v: (q, k[:, :, 1:], v), 'shapes'),
        (lambda q, k, v: (q[0], k[0], v[0]), 'shapes'),
        (lambda q, k, v: (q[..., :28], k[..., :28], v[..., :28]), 'head size 28'),
        (lambda q, k, v: (q[..., :34], k[..., :34], v[..., :34]), 'head size 34'),
        (lambda q, k, v: (q[:0], k[:0], v[:0]), 'no elements'),
    ],
)
def test_says_what_the_kernels_do_not_take(device, change, reason):
    q, k, v, table, _ = make_input(device, head_dim=36)
    assert unsupported_reason(q, k, v) is None
    changed = change(q, k, v)
    assert reason in unsupported_reason(*changed)
    with pytest.raises(ValueError, match=f'do not take this input: {reason}'):
        rala(*changed, table)


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda rows, columns: (rows[1:], columns), r'4 × 9 tokens, but q has 45'),
        (lambda rows, columns: (rows.double(), columns), r'rows is torch\.float64'),
        (lambda rows, columns: (rows, columns[:, 1:]), r'columns .* \(9, 7, 2\)'),
    ],
)
def test_a_table_that_does_not_fit_is_refused(device, change, message):
    q, k, v, table, _ = make_input(device)
    with pytest.raises(ValueError, match=message):
        rala(q, k, v, change(*table))
