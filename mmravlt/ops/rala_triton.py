"""RALA as a few fused GPU kernels, written in Triton.

The same function as :func:`mmravlt.ops.rala`. Every pass reads the inputs as they
lie in memory, applies κ and RoPE in registers and writes the result once; of what
lies between, only sums of d × d numbers per head reach memory.

.. code-block:: text

    forward    q ─> sum of κ(q), by parts ─┐
               k, v ───────────────────────┴─> softmax and both sums, by parts ─> merged
               q, merged ─> y
    backward   q, dy, merged ─> gradients of the sums, by parts ─> merged
               k, v, merged ─> dk, dv, gradient of the mean query, by parts ─> merged
               q, dy, merged ─> dq

A fixed number of programs shares the tokens of a head, and their parts are added
in a fixed order: without atomic additions, the same input always gives the same
bits. A head of few tokens has one program, and nothing to merge.

Products of half-precision inputs run in bfloat16 on tensor cores, with each float32
factor split into two bfloat16 numbers, which keeps 16 bits of it. TF32 keeps 11 and
cuts the rest off, so that every result would be smaller by 1e-3, and where the softmax
over tokens is peaked, gradients of keys would be wrong.

Origin: the equations are those of :mod:`mmravlt.ops.rala`; the softmax over
tokens in one pass is "Online normalizer calculation for softmax",
https://arxiv.org/abs/1805.02867.
"""
# ruff: noqa: N803  (in Triton, what a kernel is compiled with is written in capitals)

import torch
import triton
import triton.language as tl
from torch import Tensor, library

from .kernel_check import guarded
from .rala import PEAK

Rope = tuple[Tensor, Tensor]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unsupported_reason(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why these tensors cannot go through the kernels, in a few words.

    Args:
        q (Tensor): queries, as for :func:`rala`.
        k (Tensor): keys.
        v (Tensor): values.

    Returns:
        str | None: the first reason found, such as ``'float64'``, or ``None`` if
        :func:`rala` takes them.
    """
    if q.ndim != 4 or not q.shape == k.shape == v.shape:
        return f'shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}'
    if not q.dtype == k.dtype == v.dtype:
        return f'mixed types {q.dtype}, {k.dtype}, {v.dtype}'
    if q.dtype not in _DTYPES:
        return str(q.dtype).removeprefix('torch.')
    if not q.device == k.device == v.device:
        return f'mixed devices {q.device}, {k.device}, {v.device}'
    if not 32 <= q.shape[-1] <= 128 or q.shape[-1] % 4:
        return f'head size {q.shape[-1]}'
    if 0 in q.shape:
        return 'no elements'
    if INTERPRETED:
        return None
    if q.device.type != 'cuda':
        return f'device {q.device.type}'
    if torch.version.hip:
        return 'ROCm'
    if torch.cuda.get_device_properties(q.device).major < 8:
        return 'compute capability below 8.0'
    return None


def rala(q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
    r"""Attend from every token to every other in time linear in their number.

    The equations are those of :func:`mmravlt.ops.rala`. No input is copied,
    whatever its strides; fastest are neighbouring channels that lie side by side,
    as in views of a channels_last map.

    Args:
        q (Tensor): queries before κ, shape (B, heads, N, d), of type float32,
            float16 or bfloat16, with d a multiple of 4 from 32 to 128.
        k (Tensor): keys before κ, same shape, type and device.
        v (Tensor): values, likewise.
        rope (tuple[Tensor, Tensor]): cosine and sine of every row, shape
            (H, d / 4, 2), and of every column, shape (W, d / 4, 2), both float32,
            for N = H * W tokens in row-major order.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``, laid out in memory as
        (B, N, heads, d). Sums, κ and denominators are float32, and so are
        products of float32 inputs (of three TF32 parts on compute capability 10.0
        and 10.3); those of others keep 16 bits of each factor.

    Raises:
        ValueError: if :func:`unsupported_reason` has one, or if the table of RoPE does
            not fit.
    """
    reason = unsupported_reason(q, k, v)
    if reason is not None:
        raise ValueError(
            f'The Triton kernels of RALA do not take this input: {reason}. '
            'Use mmravlt.ops.rala, which takes every kind of tensor.'
        )
    rows, columns = rope
    n_tokens, head_dim = q.shape[-2:]
    for name, part in (('rows', rows), ('columns', columns)):
        if part.shape[1:] != (head_dim // 4, 2) or part.dtype != torch.float32:
            raise ValueError(
                f'The RoPE table of the {name} is {part.dtype} of shape '
                f'{tuple(part.shape)}; for heads of {head_dim} channels it has to be '
                f'torch.float32 of shape (…, {head_dim // 4}, 2).'
            )
    if rows.shape[0] * columns.shape[0] != n_tokens:
        raise ValueError(
            f'The RoPE table is for {rows.shape[0]} × {columns.shape[0]} tokens, but '
            f'q has {n_tokens}; make the table for the size of the map.'
        )
    return _forward(q, k, v, rows, columns)[0]


@triton.jit
def _exp(x):
    # tl.exp spends three more instructions on results below the normal numbers.
    return tl.exp2(x * 1.4426950408889634)


# Under TRITON_INTERPRET=1 the kernels run on any device, slowly.
INTERPRETED = not isinstance(_exp, triton.runtime.JITFunction)
_INTERPRETED, _PEAK = tl.constexpr(INTERPRETED), tl.constexpr(PEAK)

# In all kernels d is the head size and D the power of two that holds it; BLOCK is how
# many tokens a program holds at a time. Channels out of bounds are loaded as minus
# infinity where κ follows, since κ(-inf) = 0 adds nothing to any sum. Instead of tokens
# out of bounds the last one is loaded, which needs no masks; they get no weight.


@triton.jit
def _kappa(x):
    x = x.to(tl.float32)
    return tl.where(x > 0, x + 1, _exp(x))


@triton.jit
def _load(
    x, stride_n, stride_d, start, n_tokens, first, other,
    d: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A (BLOCK, WIDTH) tile of one head."""
    # The start can lie beyond 2^31 elements, what is left of the way cannot.
    x += tl.cast(start, tl.int64) * stride_n
    token = tl.minimum(tl.arange(0, BLOCK), n_tokens - 1 - start)
    channel = first + tl.arange(0, WIDTH)
    at = token[:, None] * stride_n + channel[None, :] * stride_d
    if d % WIDTH == 0:
        tile = tl.load(x + at)
    else:
        tile = tl.load(x + at, mask=(channel < d)[None, :], other=other)
    return tile


@triton.jit
def _store(
    x, value, stride_n, start, n_tokens, first,
    d: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    x += tl.cast(start, tl.int64) * stride_n
    token, channel = tl.arange(0, BLOCK), first + tl.arange(0, WIDTH)
    at = token[:, None] * stride_n + channel[None, :]
    mask = (token < n_tokens - start)[:, None]
    if d % WIDTH != 0:
        mask &= (channel < d)[None, :]
    tl.store(x + at, value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _load_matrix(x, first, d: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """Columns ``first`` to ``first + WIDTH`` of a d × d matrix, (D, WIDTH)."""
    row, column = tl.arange(0, D), first + tl.arange(0, WIDTH)
    mask = (row < d)[:, None] & (column < d)[None, :]
    return tl.load(x + row[:, None] * d + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store_matrix(
    x, value, first, d: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr
):
    row, column = tl.arange(0, D), first + tl.arange(0, WIDTH)
    mask = (row < d)[:, None] & (column < d)[None, :]
    tl.store(x + row[:, None] * d + column[None, :], value, mask=mask)


@triton.jit
def _load_vector(x, d: tl.constexpr, D: tl.constexpr):
    channel = tl.arange(0, D)
    return tl.load(x + channel, mask=channel < d, other=0.0)


@triton.jit
def _add_pairs(x, BLOCK: tl.constexpr, D: tl.constexpr):
    """Sums of tokens 8 apart, (BLOCK / 2, D).

    After a product on tensor cores, one thread holds both, and half as many numbers
    remain to be kept.
    """
    pairs = tl.sum(tl.reshape(x, (BLOCK // 16, 2, 8, D)), 1)
    return tl.reshape(pairs, (BLOCK // 2, D))


@triton.jit
def _angles(
    rows, columns, width, start, n_tokens,
    d: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Cosine and sine of each token and pair of channels, (BLOCK, D / 2) each."""
    half: tl.constexpr = d // 2
    token = tl.minimum(start + tl.arange(0, BLOCK), n_tokens - 1)[:, None]
    # Division of unsigned numbers takes fewer instructions.
    row = (token.to(tl.uint32) // width.to(tl.uint32)).to(tl.int32)
    column = token - row * width
    at = tl.arange(0, D)[None, :]  # cosine and sine alternate
    place = tl.where(
        at < half, rows + (row * half + at), columns + (column * half + (at - half))
    )
    angle = tl.load(place) if d == D else tl.load(place, mask=at < d, other=0.0)
    return tl.split(tl.reshape(angle, (BLOCK, D // 2, 2)))


@triton.jit
def _rotate(x, cosine, sine, BLOCK: tl.constexpr, D: tl.constexpr):
    """R x, which rotates every pair; with the sine negated, R⁻¹ x."""
    x0, x1 = tl.split(tl.reshape(x, (BLOCK, D // 2, 2)))
    turned = tl.join(x0 * cosine - x1 * sine, x1 * cosine + x0 * sine)
    return tl.reshape(turned, (BLOCK, D))


@triton.jit
def _cut(x):
    """The upper half of a float32: what bfloat16 can hold of it."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def _dot(a, b, acc):
    """acc + a b of bfloat16 tiles, which the interpreter cannot multiply."""
    if _INTERPRETED:
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision='ieee')
    else:
        acc = tl.dot(a, b, acc)
    return acc


@triton.jit
def _add_product(
    acc, a, b, A_EXACT: tl.constexpr, B_EXACT: tl.constexpr, PRECISION: tl.constexpr
):
    """acc + a b in Triton's PRECISION, or, if '', in two bfloat16 parts per factor.

    A factor that is exact is a bfloat16 tile, and its own first part.
    """
    if PRECISION != '':
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    else:
        if A_EXACT:
            a_high = a
        else:
            a = a.to(tl.float32)
            a_high = _cut(a).to(tl.bfloat16)
        if B_EXACT:
            b_high = b
        else:
            b = b.to(tl.float32)
            b_high = _cut(b).to(tl.bfloat16)
        # The small terms first. Left out is the product of both second parts.
        if not A_EXACT:
            acc = _dot((a - _cut(a)).to(tl.bfloat16), b_high, acc)
        if not B_EXACT:
            acc = _dot(a_high, (b - _cut(b)).to(tl.bfloat16), acc)
        acc = _dot(a_high, b_high, acc)
    return acc


@triton.jit
def _times_transposed(
    x, stride_n, stride_d, start, n_tokens, matrix, whole,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """x Mᵀ for BLOCK tokens, CHUNK channels of x at a time.

    ``whole`` is the matrix at ``matrix`` if CHUNK is all of it.
    """
    product = tl.zeros((BLOCK, D), tl.float32)
    for first in range(0, d, CHUNK):
        part = _load(
            x, stride_n, stride_d, start, n_tokens, first, 0.0, d, BLOCK, CHUNK
        )
        columns = whole if CHUNK == D else _load_matrix(matrix, first, d, D, CHUNK)
        product = _add_product(
            product, part, tl.trans(columns), EXACT, False, PRECISION
        )
    return product


# Each program belongs to one image and head (axis 0 of the grid) and to one split
# (axis 1), which takes every splits-th block of tokens. There are never more splits
# than blocks, so that each has a token. Per head, `sums` holds d rows of
# Σ a_j R κ(k_j)ᵀ v_j, then one row Σ a_j κ(k_j); `d_sums` is its gradient. Where a head
# has one split, its part is the result.

_OFTEN_CHANGING = ['n_tokens', 'width', 'splits']


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sum_queries_kernel(
    q, q_b, q_h, q_n, q_d, q_sum_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Parts of Σ κ(q)."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    q += tl.cast(head // heads, tl.int64) * q_b + tl.cast(head % heads, tl.int64) * q_h
    total = tl.zeros((BLOCK, D), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        there = tl.arange(0, BLOCK) < n_tokens - start
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        total += tl.where(there[:, None], queries, 0.0)
    channel = tl.arange(0, D)
    at = (tl.cast(head, tl.int64) * splits + split) * d + channel
    tl.store(q_sum_parts + at, tl.sum(total, 0), mask=channel < d)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sum_keys_kernel(
    k, k_b, k_h, k_n, k_d, v, v_b, v_h, v_n, v_d, rows, columns, width,
    q_sum, logits, stat_parts, sum_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Logits, and parts of both sums over keys by an online softmax.

    Axis 2 of the grid shares out the channels of v, COLUMNS to each program; all of
    them weigh the keys alike, and the first stores what is not about v.
    """
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * COLUMNS
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    k += image * k_b + at_head * k_h
    v += image * v_b + at_head * v_h
    head = tl.cast(head, tl.int64)
    logits += head * n_tokens
    channel = tl.arange(0, D)
    mean = _load_vector(q_sum + head * d, d, D) * (d**-0.5 / n_tokens)
    largest = -float('inf')
    weight_sums = tl.zeros((BLOCK,), tl.float32)
    key_sums = tl.zeros((BLOCK, D), tl.float32)
    buffer = tl.zeros((D, COLUMNS), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        keys = _kappa(
            _load(k, k_n, k_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        logit = tl.sum(keys * mean[None, :], 1)
        token = tl.arange(0, BLOCK)
        there = token < n_tokens - start
        if column == 0:
            tl.store(logits + start + token, logit, mask=there)
        logit = tl.where(there, logit, -float('inf'))
        before = largest
        largest = tl.maximum(before, tl.max(logit, 0))
        shrink = _exp(before - largest)
        weight = _exp(logit - largest)
        keys *= weight[:, None]
        weight_sums = weight_sums * shrink + weight
        key_sums = key_sums * shrink + keys
        turned = tl.trans(_rotate(keys, cosine, sine, BLOCK, D))
        values = _load(v, v_n, v_d, start, n_tokens, column, 0.0, d, BLOCK, COLUMNS)
        buffer = _add_product(buffer * shrink, turned, values, False, EXACT, PRECISION)
    part = head * splits + split
    sum_parts += part * (d + 1) * d
    weight_sum = tl.sum(weight_sums, 0)
    factor = 1.0
    if splits == 1:
        factor = 1 / weight_sum
    _store_matrix(sum_parts, buffer * factor, column, d, D, COLUMNS)
    if column == 0:
        key_sum = tl.sum(key_sums, 0) * factor
        tl.store(sum_parts + d * d + channel, key_sum, mask=channel < d)
        tl.store(stat_parts + part * 2, largest)
        tl.store(stat_parts + part * 2 + 1, weight_sum)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _merge_keys_kernel(
    stat_parts, sum_parts, stats, sums, splits,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """WIDTH of the SIZE numbers of ``sums`` from their parts; axis 1 says which."""
    head, piece = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    stat_parts += head * splits * 2
    sum_parts += head * splits * SIZE
    at = piece * WIDTH + tl.arange(0, WIDTH)
    largest = -float('inf')
    weight_sum = 0.0
    total = tl.zeros((WIDTH,), tl.float32)
    for first in range(0, splits, PARTS):
        part = first + tl.arange(0, PARTS)
        there = part < splits
        maximum = tl.load(stat_parts + part * 2, mask=there, other=-float('inf'))
        before = largest
        largest = tl.maximum(before, tl.max(maximum, 0))
        shrink, factor = _exp(before - largest), _exp(maximum - largest)
        weight = tl.load(stat_parts + part * 2 + 1, mask=there, other=0.0)
        weight_sum = weight_sum * shrink + tl.sum(weight * factor, 0)
        found = tl.load(
            sum_parts + part[:, None] * SIZE + at[None, :],
            mask=there[:, None] & (at < SIZE)[None, :],
            other=0.0,
        )
        total = total * shrink + tl.sum(found * factor[:, None], 0)
    tl.store(sums + head * SIZE + at, total / weight_sum, mask=at < SIZE)
    if piece == 0:
        tl.store(stats + head * 2, largest)
        tl.store(stats + head * 2 + 1, weight_sum)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _merge_kernel(
    parts, total, splits,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """WIDTH of the SIZE numbers of the sum of all parts; axis 1 says which."""
    head, piece = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    parts += head * splits * SIZE
    at = piece * WIDTH + tl.arange(0, WIDTH)
    sums = tl.zeros((PARTS, WIDTH), tl.float32)
    for first in range(0, splits, PARTS):
        part = first + tl.arange(0, PARTS)
        sums += tl.load(
            parts + part[:, None] * SIZE + at[None, :],
            mask=(part < splits)[:, None] & (at < SIZE)[None, :],
            other=0.0,
        )
    tl.store(total + head * SIZE + at, tl.sum(sums, 0), mask=at < SIZE)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _output_kernel(
    q, q_b, q_h, q_n, q_d, rows, columns, width, sums, y, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """y from q and ``sums``, CHUNK channels of v at a time."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    y += (image * n_tokens * heads + at_head) * d
    sums += tl.cast(head, tl.int64) * (d + 1) * d
    key_sum = _load_vector(sums + d * d, d, D)
    if CHUNK == D:
        buffer = _load_matrix(sums, 0, d, D, D)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        inverse = 1 / (tl.sum(queries * key_sum[None, :], 1) + 1e-6)
        turned = _rotate(queries * inverse[:, None], cosine, sine, BLOCK, D)
        for first in range(0, d, CHUNK):
            if CHUNK != D:
                buffer = _load_matrix(sums, first, d, D, CHUNK)
            out = tl.zeros((BLOCK, CHUNK), tl.float32)
            out = _add_product(out, turned, buffer, False, False, PRECISION)
            _store(y, out, heads * d, start, n_tokens, first, d, BLOCK, CHUNK)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sums_backward_kernel(
    q, q_b, q_h, q_n, q_d, dy, dy_b, dy_h, dy_n, dy_d, rows, columns, width,
    sums, d_sum_parts, peaks, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Parts of the gradient with respect to ``sums``; no key is a peak yet.

    Axis 2 of the grid shares out the channels of dy, COLUMNS to each program; the
    first also finds the gradient of Σ a_j κ(k_j).
    """
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * COLUMNS
    if (split == 0) & (column == 0):
        tl.store(peaks + head, -1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    dy += image * dy_b + at_head * dy_h
    head = tl.cast(head, tl.int64)
    sums += head * (d + 1) * d
    key_sum = _load_vector(sums + d * d, d, D)
    d_key_sums = tl.zeros((BLOCK // 2, D), tl.float32)
    d_buffer = tl.zeros((D, COLUMNS), tl.float32)
    whole = 0
    if CHUNK == D:
        whole = _load_matrix(sums, 0, d, D, D)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        inverse = 1 / (tl.sum(queries * key_sum[None, :], 1) + 1e-6)
        inverse = tl.where(tl.arange(0, BLOCK) < n_tokens - start, inverse, 0.0)
        turned = _rotate(queries * inverse[:, None], cosine, sine, BLOCK, D)
        d_out = _load(dy, dy_n, dy_d, start, n_tokens, column, 0.0, d, BLOCK, COLUMNS)
        d_buffer = _add_product(
            d_buffer, tl.trans(turned), d_out, False, EXACT, PRECISION
        )
        if COLUMNS == D or column == 0:
            back = _times_transposed(
                dy, dy_n, dy_d, start, n_tokens, sums, whole,
                d, D, BLOCK, CHUNK, PRECISION, EXACT,
            )  # fmt: skip
            # dy · y = dy · (Rκ(q) KV) / den = Rκ(q) · (dy KVᵀ) / den
            d_denominator = -tl.sum(turned * back, 1) * inverse
            d_key_sums += _add_pairs(queries * d_denominator[:, None], BLOCK, D)
    d_sum_parts += (head * splits + split) * (d + 1) * d
    _store_matrix(d_sum_parts, d_buffer, column, d, D, COLUMNS)
    if column == 0:
        channel = tl.arange(0, D)
        tl.store(d_sum_parts + d * d + channel, tl.sum(d_key_sums, 0), mask=channel < d)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _keys_backward_kernel(
    k, k_b, k_h, k_n, k_d, v, v_b, v_h, v_n, v_d, rows, columns, width,
    q_sum, logits, stats, sums, d_sums, dk, dv, dq_sum_parts, peaks, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dk, dv, and parts of √d N times the gradient with respect to ``q_sum``.

    A key with most of the weight is left to :func:`_queries_backward_kernel` as far as
    its logit goes, and named in ``peaks``: of its gradient, a (da - Σ a da), rounding
    would leave nothing, since da is nearly all of the sum. The gradients of all logits
    sum to zero, so it is what the others lack, and each part of ``dq_sum_parts`` ends
    with the sum of the others.
    """
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    k += image * k_b + at_head * k_h
    v += image * v_b + at_head * v_h
    dk += (image * n_tokens * heads + at_head) * d
    dv += (image * n_tokens * heads + at_head) * d
    peaks += head
    head = tl.cast(head, tl.int64)
    logits += head * n_tokens
    sums += head * (d + 1) * d
    d_sums += head * (d + 1) * d
    d_key_sum = _load_vector(d_sums + d * d, d, D)
    mean = _load_vector(q_sum + head * d, d, D) * (d**-0.5 / n_tokens)
    largest = tl.load(stats + head * 2)
    inverse = 1 / tl.load(stats + head * 2 + 1)
    # Σ a_j da_j, which the softmax's gradient needs, without a pass over tokens.
    a_dot_da = tl.sum(d_key_sum * _load_vector(sums + d * d, d, D), 0)
    for first in range(0, d, CHUNK):
        matrix = _load_matrix(d_sums, first, d, D, CHUNK)
        product = matrix * _load_matrix(sums, first, d, D, CHUNK)
        a_dot_da += tl.sum(tl.sum(product, 0), 0)
    d_q_sums = tl.zeros((BLOCK // 2, D), tl.float32)
    d_logit_sums = tl.zeros((BLOCK,), tl.float32)
    whole = 0
    if CHUNK == D:
        whole = _load_matrix(d_sums, 0, d, D, D)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        keys = _kappa(
            _load(k, k_n, k_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        token = tl.arange(0, BLOCK)
        there = token < n_tokens - start
        logit = tl.load(logits + start + token, mask=there, other=-float('inf'))
        a = _exp(logit - largest) * inverse
        turned = _rotate(keys * a[:, None], cosine, sine, BLOCK, D)
        for first in range(0, d, CHUNK):
            matrix = whole if CHUNK == D else _load_matrix(d_sums, first, d, D, CHUNK)
            d_values = tl.zeros((BLOCK, CHUNK), tl.float32)
            d_values = _add_product(d_values, turned, matrix, False, False, PRECISION)
            _store(dv, d_values, heads * d, start, n_tokens, first, d, BLOCK, CHUNK)
        back = _times_transposed(
            v, v_n, v_d, start, n_tokens, d_sums, whole,
            d, D, BLOCK, CHUNK, PRECISION, EXACT,
        )  # fmt: skip
        back = _rotate(back, cosine, -sine, BLOCK, D) + d_key_sum[None, :]
        da = tl.sum(keys * back, 1)
        is_peak = a > _PEAK
        tl.store(peaks + token * 0, start + token, mask=is_peak)
        d_logit = tl.where(is_peak, 0.0, a * (da - a_dot_da))
        d_logit_sums += d_logit
        d_q_sums += _add_pairs(keys * d_logit[:, None], BLOCK, D)
        d_keys = back * a[:, None] + d_logit[:, None] * mean[None, :]
        d_keys *= tl.minimum(keys, 1.0)
        _store(dk, d_keys, heads * d, start, n_tokens, 0, d, BLOCK, D)
    channel = tl.arange(0, D)
    dq_sum_parts += (head * splits + split) * (d + 1)
    tl.store(dq_sum_parts + channel, tl.sum(d_q_sums, 0), mask=channel < d)
    tl.store(dq_sum_parts + d, tl.sum(d_logit_sums, 0))


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _queries_backward_kernel(
    q, q_b, q_h, q_n, q_d, dy, dy_b, dy_h, dy_n, dy_d, k, k_b, k_h, k_n, k_d,
    rows, columns, width, q_sum, sums, dq_sum, peaks, dk, dq, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dq, from y and from ``q_sum``, and what a peak's dk lacks."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    dy += image * dy_b + at_head * dy_h
    k += image * k_b + at_head * k_h
    dk += (image * n_tokens * heads + at_head) * d
    dq += (image * n_tokens * heads + at_head) * d
    peak = tl.load(peaks + head).to(tl.int64)
    head = tl.cast(head, tl.int64)
    sums += head * (d + 1) * d
    dq_sum += head * (d + 1)
    key_sum = _load_vector(sums + d * d, d, D)
    d_q_sum = _load_vector(dq_sum, d, D)
    if peak >= 0:
        channel = tl.arange(0, D)
        inside = channel < d
        key = _kappa(
            tl.load(k + peak * k_n + channel * k_d, mask=inside, other=-float('inf'))
        )
        d_logit = -tl.load(dq_sum + d)
        d_q_sum += d_logit * key
        if split == 0:
            mean = _load_vector(q_sum + head * d, d, D) * (d**-0.5 / n_tokens)
            place = dk + peak * heads * d + channel
            d_key = tl.load(place, mask=inside, other=0.0).to(tl.float32)
            d_key += d_logit * mean * tl.minimum(key, 1.0)
            tl.store(place, d_key.to(dk.dtype.element_ty), mask=inside)
    d_q_sum *= d**-0.5 / n_tokens
    whole = 0
    if CHUNK == D:
        whole = _load_matrix(sums, 0, d, D, D)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        inverse = 1 / (tl.sum(queries * key_sum[None, :], 1) + 1e-6)
        back = _times_transposed(
            dy, dy_n, dy_d, start, n_tokens, sums, whole,
            d, D, BLOCK, CHUNK, PRECISION, EXACT,
        )  # fmt: skip
        back = _rotate(back * inverse[:, None], cosine, -sine, BLOCK, D)
        d_denominator = -tl.sum(queries * back, 1) * inverse
        d_queries = back + d_q_sum[None, :] + d_denominator[:, None] * key_sum[None, :]
        d_queries *= tl.minimum(queries, 1.0)
        _store(dq, d_queries, heads * d, start, n_tokens, 0, d, BLOCK, D)


def _capability(device: torch.device) -> int:
    """Major compute capability; of the interpreter, that of an H100."""
    return torch.cuda.get_device_capability(device)[0] if device.type == 'cuda' else 9


def _tiles(x: Tensor) -> dict:
    """What the kernels with products are compiled with, but for COLUMNS.

    Tiles are as large as registers and the 99 KiB of shared memory allow that compute
    capability 8.6 has; ``python -m benchmarks compile`` tells what spills. Nothing
    depends on the number of tokens: a new image size compiles nothing.
    """
    size, capability = triton.next_power_of_2(x.shape[-1]), _capability(x.device)
    if x.dtype != torch.float32:
        precision = ''
    elif capability == 10:  # which does not compile transposed tiles of full precision
        precision = 'tf32x3'
    else:
        precision = 'ieee'
    # Only from 64 tokens, products run in the way that is special to 9.0. With channels
    # to mask, or apart or unaligned in memory, so many would spill registers.
    vectors = x.stride(-1) == 1 and x.stride(-2) % 8 == 0
    simple = x.shape[-1] == size <= 64 and vectors
    block = 64 if simple and capability == 9 and not precision else 32
    return {
        'd': x.shape[-1],
        'D': size,
        'BLOCK': block,
        'CHUNK': min(size, 32 if precision else 64),
        'PRECISION': precision,
        'EXACT': x.dtype == torch.bfloat16,
        'num_warps': 8 if size > 64 or precision == 'ieee' else 4,
        'num_stages': 2,
    }


def _columns(x: Tensor) -> int:
    """Columns of a (D, D) sum that one program keeps in registers."""
    size = triton.next_power_of_2(x.shape[-1])
    return min(size, 32 if x.dtype == torch.float32 else 64)


def _pieces(size: int) -> tuple[int, dict]:
    """Programs that merge the sums of one head, and what they are compiled with."""
    # The interpreter takes as long for a long vector as for a short one.
    width = 2048 if INTERPRETED else 64
    return triton.cdiv(size, width), {'SIZE': size, 'WIDTH': width, 'PARTS': 32}


def _multiprocessors(device: torch.device) -> int:
    """How many programs run at once; the interpreter runs one after another."""
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


# So few blocks of tokens that one program takes them all, which saves four launches. An
# estimate: no GPU was at hand to measure where that ends.
_FEW_BLOCKS = 4


def _splits(x: Tensor, block: int) -> int:
    """Programs for one image and head, so that all run at once.

    Two fit on a multiprocessor, of heads wider than 64 channels one.
    """
    batch, heads, n_tokens, d = x.shape
    programs = (2 if d <= 64 else 1) * _multiprocessors(x.device) // (batch * heads)
    blocks = triton.cdiv(n_tokens, block)
    return 1 if blocks <= _FEW_BLOCKS else max(1, min(programs, blocks))


def _empty_like_map(x: Tensor) -> Tensor:
    """Shape (B, heads, N, d), in memory (B, N, heads, d) as in a channels_last map."""
    batch, heads, n_tokens, head_dim = x.shape
    return x.new_empty(batch, n_tokens, heads, head_dim).transpose(1, 2)


def _empty_summaries(x: Tensor) -> tuple[Tensor, ...]:
    batch, heads, n_tokens, d = x.shape
    # Half precision would not do for sums over all tokens.
    shapes = (
        *((batch, heads, d), (batch, heads, n_tokens)),
        *((batch, heads, 2), (batch, heads, d + 1, d)),
    )
    return tuple(x.new_empty(shape, dtype=torch.float32) for shape in shapes)


def _merge(parts: Tensor, total: Tensor) -> None:
    """Add up the parts (B · heads, splits, …) of each head, unless they are the sum."""
    if parts is not total:
        all_heads, splits = parts.shape[:2]
        pieces, merging = _pieces(parts[0, 0].numel())
        _merge_kernel[all_heads, pieces](parts, total, splits, **merging)


@library.custom_op('mmravlt::rala', mutates_args=())
@guarded('forward')
def _forward(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, and what the gradient needs of all tokens, all float32: Σ κ(q_i),
    (B, heads, d); the logits (B, heads, N); the largest logit and the softmax's
    denominator (B, heads, 2); Σ a_j R κ(k_j)ᵀ v_j, below it Σ a_j κ(k_j),
    (B, heads, d + 1, d).
    """
    batch, heads, n_tokens, d = q.shape
    all_heads = batch * heads
    rope = rows.contiguous(), columns.contiguous(), columns.shape[0]
    y, (q_sum, logits, stats, sums) = _empty_like_map(q), _empty_summaries(q)
    tiles, groups = _tiles(q), triton.cdiv(d, _columns(q))
    summing = {**tiles, 'COLUMNS': _columns(q)}
    del summing['CHUNK']
    if q.dtype == torch.float16:  # one block more at a time would spill registers
        summing['num_stages'] = 1
    splits = _splits(q, tiles['BLOCK'])
    if splits == 1:
        q_sum_parts, stat_parts, sum_parts = q_sum, stats, sums
    else:
        q_sum_parts = q_sum.new_empty(all_heads, splits, d)
        stat_parts = q_sum.new_empty(all_heads, splits, 2)
        sum_parts = q_sum.new_empty(all_heads, splits, d + 1, d)
    with torch.cuda.device_of(q):
        _sum_queries_kernel[all_heads, splits](
            q, *q.stride(), q_sum_parts, heads, n_tokens,
            d, tiles['D'], 2 * tiles['BLOCK'], num_warps=8,
        )  # fmt: skip
        _merge(q_sum_parts, q_sum)
        _sum_keys_kernel[all_heads, splits, groups](
            k, *k.stride(), v, *v.stride(), *rope, q_sum, logits, stat_parts,
            sum_parts, heads, n_tokens, **summing,
        )  # fmt: skip
        if splits > 1:
            pieces, merging = _pieces((d + 1) * d)
            _merge_keys_kernel[all_heads, pieces](
                stat_parts, sum_parts, stats, sums, splits, **merging
            )
        _output_kernel[all_heads, splits](
            q, *q.stride(), *rope, sums, y, heads, n_tokens, **tiles
        )
    return y, q_sum, logits, stats, sums


@_forward.register_fake
def _(q, k, v, rows, columns):
    return _empty_like_map(q), *_empty_summaries(q)


@library.custom_op('mmravlt::rala_backward', mutates_args=())
@guarded('backward')
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor,
    q_sum: Tensor, logits: Tensor, stats: Tensor, sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk and dv from dy and from what :func:`_forward` was given and returned."""
    batch, heads, n_tokens, d = q.shape
    all_heads = batch * heads
    rope = rows.contiguous(), columns.contiguous(), columns.shape[0]
    dq, dk, dv = (_empty_like_map(x) for x in (q, k, v))
    tiles, groups = _tiles(q), triton.cdiv(d, _columns(q))
    splits = _splits(q, tiles['BLOCK'])
    summing = {**tiles, 'COLUMNS': _columns(q)}
    if tiles['BLOCK'] == 32 and not tiles['PRECISION']:  # more would spill registers
        summing |= {'BLOCK': 16, 'CHUNK': 32, 'num_stages': 1}
    peaks = q_sum.new_empty(all_heads, dtype=torch.int32)
    d_sums, dq_sum = torch.empty_like(sums), q_sum.new_empty(all_heads, d + 1)
    if splits == 1:
        d_sum_parts, dq_sum_parts = d_sums, dq_sum
    else:
        d_sum_parts = q_sum.new_empty(all_heads, splits, d + 1, d)
        dq_sum_parts = q_sum.new_empty(all_heads, splits, d + 1)
    with torch.cuda.device_of(q):
        _sums_backward_kernel[all_heads, splits, groups](
            q, *q.stride(), dy, *dy.stride(), *rope, sums, d_sum_parts, peaks,
            heads, n_tokens, **summing,
        )  # fmt: skip
        _merge(d_sum_parts, d_sums)
        _keys_backward_kernel[all_heads, splits](
            k, *k.stride(), v, *v.stride(), *rope, q_sum, logits, stats, sums,
            d_sums, dk, dv, dq_sum_parts, peaks, heads, n_tokens, **tiles,
        )  # fmt: skip
        _merge(dq_sum_parts, dq_sum)
        _queries_backward_kernel[all_heads, splits](
            q, *q.stride(), dy, *dy.stride(), k, *k.stride(), *rope, q_sum,
            sums, dq_sum, peaks, dk, dq, heads, n_tokens, **tiles,
        )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(dy, q, k, v, rows, columns, q_sum, logits, stats, sums):
    return _empty_like_map(q), _empty_like_map(k), _empty_like_map(v)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dy, *_):
    if dy is None:
        return (None,) * 5
    return *_backward(dy, *ctx.saved_tensors), None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
