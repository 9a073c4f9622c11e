"""RALA as a few fused GPU kernels, written in Triton.

The same function as :func:`mmravlt.ops.rala`. Every pass reads the inputs as they
lie in memory, applies κ and RoPE in registers and writes the result once; of what
lies between, only sums of d × d numbers per head reach memory.

.. code-block:: text

    forward    q ─> sum of κ(q) ─┐
               k, v ─────────────┴─> softmax and both sums, by parts ─> merged
               q, merged ─> y
    backward   q, dy, merged ─> gradients of the sums, by parts ─> merged
               k, v, merged ─> dk, dv, gradient of the mean query, by parts
               q, dy, merged ─> dq

A fixed number of programs shares the tokens of a head, and their parts are added
in a fixed order: without atomic additions, the same input always gives the same
bits.

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

Table = tuple[Tensor, Tensor]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def why_not(q: Tensor, k: Tensor, v: Tensor) -> str | None:
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


def rala(q: Tensor, k: Tensor, v: Tensor, table: Table) -> Tensor:
    r"""Attend from every token to every other in time linear in their number.

    The equations are those of :func:`mmravlt.ops.rala`. No input is copied,
    whatever its strides; fastest are neighbouring channels that lie side by side,
    as in views of a channels_last map.

    Args:
        q (Tensor): queries before κ, shape (B, heads, N, d), of type float32,
            float16 or bfloat16, with d a multiple of 4 from 32 to 128.
        k (Tensor): keys before κ, same shape, type and device.
        v (Tensor): values, likewise.
        table (tuple[Tensor, Tensor]): cosine and sine of every row, shape
            (H, d / 4, 2), and of every column, shape (W, d / 4, 2), both float32,
            for N = H * W tokens in row-major order.

    Returns:
        Tensor: shape (B, heads, N, d) in the type of ``v``, laid out in memory as
        (B, N, heads, d). Sums, κ and denominators are float32; products of
        half-precision inputs run in TF32, those of float32 inputs in float32.

    Raises:
        ValueError: if :func:`why_not` has a reason, or if the table does not fit.
    """
    reason = why_not(q, k, v)
    if reason is not None:
        raise ValueError(
            f'The Triton kernels of RALA do not take this input: {reason}. '
            'Use mmravlt.ops.rala, which takes every kind of tensor.'
        )
    rows, columns = table
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


# In all kernels d is the head size and D the power of two that holds it; BLOCK is how
# many tokens a program holds at a time. Tokens and channels out of bounds are loaded
# as minus infinity where κ follows, since κ(-inf) = 0 adds nothing to any sum.


@triton.jit
def _kappa(x):
    return tl.where(x > 0, x + 1, tl.exp(x))


@triton.jit
def _inside(
    start, n_tokens, first, d: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr
):
    token = start + tl.arange(0, BLOCK)
    channel = first + tl.arange(0, WIDTH)
    return (token < n_tokens)[:, None] & (channel < d)[None, :]


@triton.jit
def _load(
    x,
    stride_n,
    stride_d,
    start,
    n_tokens,
    first,
    other,
    d: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """A (BLOCK, WIDTH) tile of one head, in float32."""
    # The start can lie beyond 2^31 elements, what is left of the way cannot.
    x += tl.cast(start, tl.int64) * stride_n
    token, channel = tl.arange(0, BLOCK), first + tl.arange(0, WIDTH)
    at = token[:, None] * stride_n + channel[None, :] * stride_d
    mask = _inside(start, n_tokens, first, d, BLOCK, WIDTH)
    return tl.load(x + at, mask=mask, other=other).to(tl.float32)


@triton.jit
def _store(
    x,
    value,
    stride_n,
    start,
    n_tokens,
    first,
    d: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    x += tl.cast(start, tl.int64) * stride_n
    token, channel = tl.arange(0, BLOCK), first + tl.arange(0, WIDTH)
    at = token[:, None] * stride_n + channel[None, :]
    mask = _inside(start, n_tokens, first, d, BLOCK, WIDTH)
    tl.store(x + at, value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _load_matrix(x, first, d: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """Columns ``first`` to ``first + WIDTH`` of a d × d matrix, (D, WIDTH)."""
    row, column = tl.arange(0, D), first + tl.arange(0, WIDTH)
    mask = (row < d)[:, None] & (column < d)[None, :]
    return tl.load(x + row[:, None] * d + column[None, :], mask=mask, other=0.0)


@triton.jit
def _load_transposed(x, first, d: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """The transpose of what :func:`_load_matrix` loads, (WIDTH, D)."""
    row, column = tl.arange(0, D), first + tl.arange(0, WIDTH)
    mask = (row < d)[None, :] & (column < d)[:, None]
    return tl.load(x + row[None, :] * d + column[:, None], mask=mask, other=0.0)


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
def _sum_of_parts(parts, count, d: tl.constexpr, D: tl.constexpr):
    """Sum of ``count`` vectors of d numbers, in a fixed order."""
    channel = tl.arange(0, D)
    total = tl.zeros((64, D), tl.float32)
    for first in range(0, count, 64):
        part = first + tl.arange(0, 64)
        mask = (part < count)[:, None] & (channel < d)[None, :]
        at = part[:, None] * d + channel[None, :]
        total += tl.load(parts + at, mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _angles(
    rows,
    columns,
    width,
    start,
    n_tokens,
    d: tl.constexpr,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
):
    """Cosine and sine of each token and pair of channels, (BLOCK, D / 2) each."""
    half: tl.constexpr = d // 2
    token = (start + tl.arange(0, BLOCK))[:, None]
    at = tl.arange(0, D)[None, :]  # cosine and sine alternate
    of_row = tl.load(
        rows + (token // width) * half + at,
        mask=(token < n_tokens) & (at < half),
        other=0.0,
    )
    of_column = tl.load(
        columns + (token % width) * half + at - half,
        mask=(token < n_tokens) & (at >= half) & (at < d),
        other=0.0,
    )
    return tl.split(tl.reshape(of_row + of_column, (BLOCK, D // 2, 2)))


@triton.jit
def _rotate(x, cosine, sine, BLOCK: tl.constexpr, D: tl.constexpr):
    """R x, which rotates every pair; with the sine negated, R⁻¹ x."""
    x0, x1 = tl.split(tl.reshape(x, (BLOCK, D // 2, 2)))
    turned = tl.join(x0 * cosine - x1 * sine, x1 * cosine + x0 * sine)
    return tl.reshape(turned, (BLOCK, D))


# Each program belongs to one image and head (axis 0 of the grid) and to one split
# (axis 1), which takes every splits-th block of tokens. There are never more splits
# than blocks, so that each has a token. Per head, `sums` holds d rows of
# Σ a_j R κ(k_j)ᵀ v_j, then one row Σ a_j κ(k_j); `d_sums` is its gradient.

_OFTEN_CHANGING = ['n_tokens', 'width', 'g_splits', 'splits']


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sum_queries_kernel(
    q, q_b, q_h, q_n, q_d, g_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Parts of Σ κ(q)."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    q += tl.cast(head // heads, tl.int64) * q_b + tl.cast(head % heads, tl.int64) * q_h
    total = tl.zeros((BLOCK, D), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        total += _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
    channel = tl.arange(0, D)
    at = (tl.cast(head, tl.int64) * splits + split) * d + channel
    tl.store(g_parts + at, tl.sum(total, 0), mask=channel < d)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sum_keys_kernel(
    k, k_b, k_h, k_n, k_d, v, v_b, v_h, v_n, v_d, rows, columns, width,
    g_parts, g_splits, g, stat_parts, sum_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The mean query, and parts of both sums over keys by an online softmax.

    Axis 2 of the grid shares out the channels of v, COLUMNS to each program; all of
    them weigh the keys alike, and the first stores what is not about v.
    """
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * COLUMNS
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    k += image * k_b + at_head * k_h
    v += image * v_b + at_head * v_h
    head = tl.cast(head, tl.int64)
    channel = tl.arange(0, D)
    mean = _sum_of_parts(g_parts + head * g_splits * d, g_splits, d, D) / n_tokens
    if (split == 0) & (column == 0):
        tl.store(g + head * d + channel, mean, mask=channel < d)
    mean *= d**-0.5
    largest = -float('inf')
    weight_sum = 0.0
    key_sum = tl.zeros((D,), tl.float32)
    buffer = tl.zeros((D, COLUMNS), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        keys = _kappa(
            _load(k, k_n, k_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        values = _load(v, v_n, v_d, start, n_tokens, column, 0.0, d, BLOCK, COLUMNS)
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        logit = tl.sum(keys * mean[None, :], 1)
        there = start + tl.arange(0, BLOCK) < n_tokens
        logit = tl.where(there, logit, -float('inf'))
        before = largest
        largest = tl.maximum(before, tl.max(logit, 0))
        shrink = tl.exp(before - largest)
        weight = tl.exp(logit - largest)
        keys *= weight[:, None]
        weight_sum = weight_sum * shrink + tl.sum(weight, 0)
        key_sum = key_sum * shrink + tl.sum(keys, 0)
        turned = tl.trans(_rotate(keys, cosine, sine, BLOCK, D))
        buffer = tl.dot(turned, values, acc=buffer * shrink, input_precision=PRECISION)
    part = head * splits + split
    sum_parts += part * (d + 1) * d
    _store_matrix(sum_parts, buffer, column, d, D, COLUMNS)
    if column == 0:
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
        shrink, factor = tl.exp(before - largest), tl.exp(maximum - largest)
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
def _output_kernel(
    q, q_b, q_h, q_n, q_d, rows, columns, width, sums, y, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """y from q and ``sums``, CHUNK channels of v at a time."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    y += (image * n_tokens * heads + at_head) * d
    sums += tl.cast(head, tl.int64) * (d + 1) * d
    key_sum = _load_vector(sums + d * d, d, D)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        denominator = tl.sum(queries * key_sum[None, :], 1) + 1e-6
        turned = _rotate(queries, cosine, sine, BLOCK, D)
        for first in range(0, d, CHUNK):
            buffer = _load_matrix(sums, first, d, D, CHUNK)
            out = tl.dot(turned, buffer, input_precision=PRECISION)
            out = out / denominator[:, None]
            _store(y, out, heads * d, start, n_tokens, first, d, BLOCK, CHUNK)


@triton.jit
def _times_transposed(
    x, stride_n, stride_d, start, n_tokens, matrix,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """x Mᵀ for BLOCK tokens, CHUNK channels of x at a time."""
    product = tl.zeros((BLOCK, D), tl.float32)
    for first in range(0, d, CHUNK):
        part = _load(
            x, stride_n, stride_d, start, n_tokens, first, 0.0, d, BLOCK, CHUNK
        )
        turned = _load_transposed(matrix, first, d, D, CHUNK)
        product = tl.dot(part, turned, acc=product, input_precision=PRECISION)
    return product


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _sums_backward_kernel(
    q, q_b, q_h, q_n, q_d, dy, dy_b, dy_h, dy_n, dy_d, rows, columns, width,
    sums, d_sum_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Parts of the gradient with respect to ``sums``.

    Axis 2 of the grid shares out the channels of dy, COLUMNS to each program; the
    first also finds the gradient of Σ a_j κ(k_j).
    """
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * COLUMNS
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    dy += image * dy_b + at_head * dy_h
    head = tl.cast(head, tl.int64)
    sums += head * (d + 1) * d
    key_sum = _load_vector(sums + d * d, d, D)
    d_key_sum = tl.zeros((D,), tl.float32)
    d_buffer = tl.zeros((D, COLUMNS), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        denominator = tl.sum(queries * key_sum[None, :], 1) + 1e-6
        turned = _rotate(queries, cosine, sine, BLOCK, D)
        if column == 0:
            back = _times_transposed(
                dy, dy_n, dy_d, start, n_tokens, sums, d, D, BLOCK, CHUNK, PRECISION
            )
            # dy · y = dy · (Rκ(q) KV) / den = Rκ(q) · (dy KVᵀ) / den
            d_denominator = -tl.sum(turned * back, 1) / denominator / denominator
            d_key_sum += tl.sum(queries * d_denominator[:, None], 0)
        d_out = _load(dy, dy_n, dy_d, start, n_tokens, column, 0.0, d, BLOCK, COLUMNS)
        d_out = d_out / denominator[:, None]
        d_buffer = tl.dot(
            tl.trans(turned), d_out, acc=d_buffer, input_precision=PRECISION
        )
    d_sum_parts += (head * splits + split) * (d + 1) * d
    _store_matrix(d_sum_parts, d_buffer, column, d, D, COLUMNS)
    if column == 0:
        channel = tl.arange(0, D)
        tl.store(d_sum_parts + d * d + channel, d_key_sum, mask=channel < d)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _merge_backward_kernel(
    d_sum_parts, sums, d_sums, inner, splits,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """As above for ``d_sums``, and the inner product of each piece with ``sums``."""
    head, piece = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1)
    d_sum_parts += head * splits * SIZE
    at = piece * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((PARTS, WIDTH), tl.float32)
    for first in range(0, splits, PARTS):
        part = first + tl.arange(0, PARTS)
        total += tl.load(
            d_sum_parts + part[:, None] * SIZE + at[None, :],
            mask=(part < splits)[:, None] & (at < SIZE)[None, :],
            other=0.0,
        )
    gradient = tl.sum(total, 0)
    tl.store(d_sums + head * SIZE + at, gradient, mask=at < SIZE)
    value = tl.load(sums + head * SIZE + at, mask=at < SIZE, other=0.0)
    product = tl.sum(gradient * value, 0)
    tl.store(inner + head * tl.num_programs(1) + piece, product)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _keys_backward_kernel(
    k, k_b, k_h, k_n, k_d, v, v_b, v_h, v_n, v_d, rows, columns, width,
    g, stats, d_sums, inner, dk, dv, dg_parts, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, PIECES: tl.constexpr, MOST_PIECES: tl.constexpr,
):  # fmt: skip
    """dk, dv, and parts of the gradient with respect to the mean query."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    k += image * k_b + at_head * k_h
    v += image * v_b + at_head * v_h
    dk += (image * n_tokens * heads + at_head) * d
    dv += (image * n_tokens * heads + at_head) * d
    head = tl.cast(head, tl.int64)
    d_sums += head * (d + 1) * d
    d_key_sum = _load_vector(d_sums + d * d, d, D)
    mean = _load_vector(g + head * d, d, D) * d**-0.5
    largest = tl.load(stats + head * 2)
    weight_sum = tl.load(stats + head * 2 + 1)
    # Σ a_j da_j, which the softmax's gradient needs, without a pass over tokens.
    a_dot_da = tl.sum(_load_vector(inner + head * PIECES, PIECES, MOST_PIECES), 0)
    d_mean = tl.zeros((D,), tl.float32)
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        keys = _kappa(
            _load(k, k_n, k_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        logit = tl.sum(keys * mean[None, :], 1)
        a = tl.exp(logit - largest) / weight_sum
        turned = _rotate(keys, cosine, sine, BLOCK, D)
        for first in range(0, d, CHUNK):
            matrix = _load_matrix(d_sums, first, d, D, CHUNK)
            d_values = tl.dot(turned, matrix, input_precision=PRECISION) * a[:, None]
            _store(dv, d_values, heads * d, start, n_tokens, first, d, BLOCK, CHUNK)
        back = _times_transposed(
            v, v_n, v_d, start, n_tokens, d_sums, d, D, BLOCK, CHUNK, PRECISION
        )
        da = tl.sum(turned * back, 1) + tl.sum(keys * d_key_sum[None, :], 1)
        d_logit = a * (da - a_dot_da)
        d_mean += tl.sum(keys * d_logit[:, None], 0)
        d_keys = _rotate(back, cosine, -sine, BLOCK, D) + d_key_sum[None, :]
        d_keys = d_keys * a[:, None] + d_logit[:, None] * mean[None, :]
        d_keys *= tl.minimum(keys, 1.0)
        _store(dk, d_keys, heads * d, start, n_tokens, 0, d, BLOCK, D)
    channel = tl.arange(0, D)
    at = (head * splits + split) * d + channel
    tl.store(dg_parts + at, d_mean * d**-0.5, mask=channel < d)


@triton.jit(do_not_specialize=_OFTEN_CHANGING)
def _queries_backward_kernel(
    q, q_b, q_h, q_n, q_d, dy, dy_b, dy_h, dy_n, dy_d, rows, columns, width,
    sums, dg_parts, g_splits, dq, heads, n_tokens,
    d: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, from y and from the mean query."""
    head, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    image, at_head = tl.cast(head // heads, tl.int64), tl.cast(head % heads, tl.int64)
    q += image * q_b + at_head * q_h
    dy += image * dy_b + at_head * dy_h
    dq += (image * n_tokens * heads + at_head) * d
    head = tl.cast(head, tl.int64)
    sums += head * (d + 1) * d
    key_sum = _load_vector(sums + d * d, d, D)
    d_mean = _sum_of_parts(dg_parts + head * g_splits * d, g_splits, d, D) / n_tokens
    for block in range(split, tl.cdiv(n_tokens, BLOCK), splits):
        start = block * BLOCK
        queries = _kappa(
            _load(q, q_n, q_d, start, n_tokens, 0, -float('inf'), d, BLOCK, D)
        )
        cosine, sine = _angles(rows, columns, width, start, n_tokens, d, BLOCK, D)
        denominator = tl.sum(queries * key_sum[None, :], 1) + 1e-6
        turned = _rotate(queries, cosine, sine, BLOCK, D)
        back = _times_transposed(
            dy, dy_n, dy_d, start, n_tokens, sums, d, D, BLOCK, CHUNK, PRECISION
        )
        back = back / denominator[:, None]
        d_denominator = -tl.sum(turned * back, 1) / denominator
        d_queries = _rotate(back, cosine, -sine, BLOCK, D) + d_mean[None, :]
        d_queries += d_denominator[:, None] * key_sum[None, :]
        d_queries *= tl.minimum(queries, 1.0)
        _store(dq, d_queries, heads * d, start, n_tokens, 0, d, BLOCK, D)


# Under TRITON_INTERPRET=1 the kernels run on any device, slowly.
INTERPRETED = not isinstance(_output_kernel, triton.runtime.JITFunction)


# A (BLOCK, D) tile of float32 per operand, and matrices CHUNK or COLUMNS wide, are
# what 8 warps hold without spilling registers, in less shared memory than the 99 KiB
# that compute capability 8.6 has. Nothing depends on the number of tokens: a new
# image size compiles nothing.
_BLOCK = 32
_COMPILING = {'num_warps': 8, 'num_stages': 2}


def _tiles(q: Tensor) -> dict:
    """What the kernels with products are compiled with, but for COLUMNS."""
    return {
        'd': q.shape[-1],
        'D': triton.next_power_of_2(q.shape[-1]),
        'BLOCK': _BLOCK,
        'CHUNK': 32,
        'PRECISION': 'ieee' if q.dtype == torch.float32 else 'tf32',
        **_COMPILING,
    }


def _columns(q: Tensor) -> int:
    """Columns of a (D, D) sum that one program keeps in registers."""
    size = triton.next_power_of_2(q.shape[-1])
    return 32 if q.dtype == torch.float32 and size == 128 else min(size, 64)


def _pieces(d: int) -> tuple[int, dict]:
    """Programs that merge the sums of one head, and what they are compiled with."""
    # The interpreter takes as long for a long vector as for a short one.
    width = 2048 if INTERPRETED else 64
    size = (d + 1) * d
    return triton.cdiv(size, width), {'SIZE': size, 'WIDTH': width, 'PARTS': 64}


def _multiprocessors(device: torch.device) -> int:
    """How many programs run at once; the interpreter runs one after another."""
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _splits(x: Tensor, block: int, each: int) -> int:
    """Programs for one image and head, with ``each`` per multiprocessor in all."""
    batch, heads, n_tokens, _ = x.shape
    programs = triton.cdiv(each * _multiprocessors(x.device), batch * heads)
    return min(programs, triton.cdiv(n_tokens, block))


def _empty_like_map(x: Tensor) -> Tensor:
    """Shape (B, heads, N, d), in memory (B, N, heads, d) as in a channels_last map."""
    batch, heads, n_tokens, head_dim = x.shape
    return x.new_empty(batch, n_tokens, heads, head_dim).transpose(1, 2)


def _empty_summaries(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, _, d = x.shape
    # Half precision would not do for sums over all tokens.
    shapes = (batch, heads, d), (batch, heads, 2), (batch, heads, d + 1, d)
    g, stats, sums = (x.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return g, stats, sums


@library.custom_op('mmravlt::rala', mutates_args=())
@guarded('forward')
def _forward(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and what the gradient needs of the sums over tokens, all float32: the mean
    query (B, heads, d); the largest logit and the softmax's denominator
    (B, heads, 2); Σ a_j R κ(k_j)ᵀ v_j, below it Σ a_j κ(k_j), (B, heads, d + 1, d).
    """
    batch, heads, n_tokens, d = q.shape
    all_heads = batch * heads
    table = rows.contiguous(), columns.contiguous(), columns.shape[0]
    y, (g, stats, sums) = _empty_like_map(q), _empty_summaries(q)
    tiles, groups = _tiles(q), triton.cdiv(d, _columns(q))
    summing = {**tiles, 'COLUMNS': _columns(q)}
    del summing['CHUNK']
    g_splits, splits = _splits(q, 4 * _BLOCK, 2), _splits(q, _BLOCK, 2)
    g_parts = g.new_empty(all_heads, g_splits, d)
    stat_parts = g.new_empty(all_heads, splits, 2)
    sum_parts = g.new_empty(all_heads, splits, d + 1, d)
    pieces, merging = _pieces(d)
    with torch.cuda.device_of(q):
        _sum_queries_kernel[all_heads, g_splits](
            q, *q.stride(), g_parts, heads, n_tokens,
            d, tiles['D'], 4 * _BLOCK, **_COMPILING,
        )  # fmt: skip
        _sum_keys_kernel[all_heads, splits, groups](
            k, *k.stride(), v, *v.stride(), *table, g_parts, g_splits, g,
            stat_parts, sum_parts, heads, n_tokens, **summing,
        )  # fmt: skip
        _merge_keys_kernel[all_heads, pieces](
            stat_parts, sum_parts, stats, sums, splits, **merging
        )
        _output_kernel[all_heads, _splits(q, _BLOCK, 4)](
            q, *q.stride(), *table, sums, y, heads, n_tokens, **tiles
        )
    return y, g, stats, sums


@_forward.register_fake
def _(q, k, v, rows, columns):
    return _empty_like_map(q), *_empty_summaries(q)


@library.custom_op('mmravlt::rala_backward', mutates_args=())
@guarded('backward')
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor,
    g: Tensor, stats: Tensor, sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk and dv from dy and from what :func:`_forward` was given and returned."""
    batch, heads, n_tokens, d = q.shape
    all_heads = batch * heads
    table = rows.contiguous(), columns.contiguous(), columns.shape[0]
    dq, dk, dv = (_empty_like_map(x) for x in (q, k, v))
    tiles, groups = _tiles(q), triton.cdiv(d, _columns(q))
    splits = _splits(q, _BLOCK, 2)
    d_sum_parts = g.new_empty(all_heads, splits, d + 1, d)
    dg_parts = g.new_empty(all_heads, splits, d)
    pieces, merging = _pieces(d)
    d_sums, inner = torch.empty_like(sums), g.new_empty(all_heads, pieces)
    with torch.cuda.device_of(q):
        _sums_backward_kernel[all_heads, splits, groups](
            q, *q.stride(), dy, *dy.stride(), *table, sums, d_sum_parts,
            heads, n_tokens, COLUMNS=_columns(q), **tiles,
        )  # fmt: skip
        _merge_backward_kernel[all_heads, pieces](
            d_sum_parts, sums, d_sums, inner, splits, **merging
        )
        _keys_backward_kernel[all_heads, splits](
            k, *k.stride(), v, *v.stride(), *table, g, stats, d_sums, inner,
            dk, dv, dg_parts, heads, n_tokens,
            PIECES=pieces, MOST_PIECES=triton.next_power_of_2(pieces), **tiles,
        )  # fmt: skip
        _queries_backward_kernel[all_heads, _splits(q, _BLOCK, 4)](
            q, *q.stride(), dy, *dy.stride(), *table, sums, dg_parts, splits, dq,
            heads, n_tokens, **tiles,
        )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(dy, q, k, v, rows, columns, g, stats, sums):
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
