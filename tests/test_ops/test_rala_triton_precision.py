"""How exact the Triton kernels are where operands have the bits of a tensor core.

Triton's interpreter multiplies whole float32 numbers, and cuts where a GPU rounds to
bfloat16. Here it multiplies and rounds as NVIDIA's tensor cores do: TF32 operands lose
their low 13 bits, half-precision operands are taken as they are, and products are
summed in float32. How a tensor core rounds within a sum is not imitated. With a GPU,
the same is asked of the GPU.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import library

pytest.importorskip('triton')
if not hasattr(library, 'custom_op'):
    pytest.skip('torch has no custom_op yet', allow_module_level=True)

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

from mmravlt import ops  # noqa: E402
from mmravlt.ops import rala_triton  # noqa: E402

NAMES = ('y', 'dq', 'dk', 'dv')
# exp of large numbers overflows in κ, which then takes its other branch.
IGNORE = pytest.mark.filterwarnings('ignore:overflow encountered:RuntimeWarning')


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def cut_to_tf32(x):
    return (bits(x) & np.uint32(0xFFFFE000)).view(np.float32)


def round_to_tf32(x):
    return cut_to_tf32((bits(x) + np.uint32(0x1000)).view(np.float32))


def round_to_bfloat16(x):
    """To the nearest, and to the even one of two, as float32."""
    odd = bits(x) >> np.uint32(16) & np.uint32(1)
    rounded = bits(x) + np.uint32(0x7FFF) + odd & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)


def times(a, b):
    return np.matmul(a, b, dtype=np.float32)


def times_in_parts(a, b, narrow, parts):
    """Products of operands that are sums of ``parts`` narrow numbers each.

    Those of two small parts are left out, and the smallest are added first.
    """
    split = []
    for x in (a, b):
        pieces = []
        for _ in range(parts):
            pieces.append(narrow(x))
            x = x - pieces[-1]
        split.append(pieces)
    pairs = [(i, j) for i in range(parts) for j in range(parts) if i + j <= parts - 1]
    pairs.sort(key=sum, reverse=True)
    return sum(times(split[0][i], split[1][j]) for i, j in pairs)


PRODUCTS = {
    'IEEE': times,
    'TF32': lambda a, b: times(cut_to_tf32(a), cut_to_tf32(b)),
    'TF32X3': lambda a, b: times_in_parts(a, b, round_to_tf32, 2),
    'BF16X3': lambda a, b: times_in_parts(a, b, round_to_bfloat16, 2),
    'BF16X6': lambda a, b: times_in_parts(a, b, round_to_bfloat16, 3),
}


def operand(x):
    """A matrix as float32, which holds each half-precision number exactly."""
    if x.dtype.scalar == tl.bfloat16:  # the interpreter keeps its bits
        return (x.data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.data.astype(np.float32)


def dot(self, a, b, d, input_precision, max_num_imprecise_acc):
    kind = str(input_precision).rpartition('.')[2].upper()
    product = times if a.dtype.scalar != tl.float32 else PRODUCTS[kind]
    total = product(operand(a), operand(b)) + d.data
    return interpreter.TensorHandle(total.astype(d.data.dtype), d.dtype.scalar)


@pytest.fixture
def tensor_cores(device, monkeypatch):
    if device.type != 'cpu':
        return
    if not rala_triton.INTERPRETED:
        pytest.skip("Triton's interpreter is off, because there is a GPU")
    builder = interpreter.InterpreterBuilder
    cast = builder.cast_impl

    def rounding_cast(self, source, target):
        if (source.dtype.scalar, target.scalar) == (tl.float32, tl.bfloat16):
            rounded = round_to_bfloat16(source.data)
            source = interpreter.TensorHandle(rounded, tl.float32)
        return cast(self, source, target)

    monkeypatch.setattr(builder, 'cast_impl', rounding_cast)
    monkeypatch.setattr(builder, 'create_dot', dot)
    allowed = tuple(kind.lower() for kind in PRODUCTS)
    options = dataclasses.replace(
        interpreter.interpreter_builder.options, allowed_dot_input_precisions=allowed
    )
    monkeypatch.setattr(interpreter.interpreter_builder, 'options', options)
    # Several programs, whose parts are merged.
    monkeypatch.setattr(rala_triton, '_multiprocessors', lambda *_: 4)


def make_input(device, dtype, shape, head_dim, scale, heads=1):
    """q, k, v and dy as they lie in a channels_last map, and the table.

    ``scale`` says how much larger each of the four is than N(0, 1).
    """
    numbers = torch.randn(1, shape[0] * shape[1], 4, heads, head_dim)
    numbers *= torch.tensor(scale)[:, None, None]
    tensors = (x.transpose(1, 2) for x in numbers.to(device, dtype).unbind(2))
    return *tensors, ops.rope2d_table(*shape, head_dim, device)


def with_gradients(function, q, k, v, dy, table):
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = function(*inputs, table)
    return y.detach(), *torch.autograd.grad(y, inputs, dy)


def size(x):
    return x.norm().item()


def largest(x):
    return x.abs().max().item()


def results(device, function, *tensors):
    """Of a function, of PyTorch's path on the CPU, and in float64."""
    *tensors, table = tensors
    on_cpu = [x.cpu() for x in tensors], [x.cpu() for x in table]
    exact = [x.double() for x in on_cpu[0]]
    got = with_gradients(function, *tensors, table)
    return (
        [x.cpu() for x in got],
        with_gradients(ops.rala, *on_cpu[0], on_cpu[1]),
        with_gradients(ops.rala_reference, *exact, on_cpu[1]),
    )


@IGNORE
@pytest.mark.parametrize('scale', [1, 10, 30, 100])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_as_exact_as_pytorch_however_peaked_the_softmax(
    device, tensor_cores, dtype, scale
):
    tensors = make_input(device, dtype, (7, 13), 64, [scale, scale, 1.0, 1.0])
    compared = results(device, rala_triton.rala, *tensors)
    for name, x, pytorch, true in zip(NAMES, *compared, strict=True):
        assert x.dtype == dtype
        for measure in (size, largest):
            error, bound = measure(x - true), 2 * measure(pytorch - true)
            assert error <= bound, name
        # Against the true result as it would be stored: rounding it is no shrinking.
        stored = true.to(dtype).double()
        growth = ((x - stored) * true).sum().item() / size(true) ** 2
        # Where few numbers dominate, PyTorch's path may lose more by chance.
        chance = size(pytorch - stored) / size(true)
        assert growth >= -max(1e-4, chance), name


@IGNORE
@pytest.mark.parametrize('function', [rala_triton.rala, ops.rala])
def test_gradients_of_large_activations_cancel_exactly(device, tensor_cores, function):
    tensors = make_input(device, torch.float32, (7, 13), 56, 4 * [1e3], heads=2)
    got, _, expected = results(device, function, *tensors)
    for name, x, true in zip(NAMES, got, expected, strict=True):
        error = largest(x - true) / largest(true)
        assert error <= 1e-5, name
