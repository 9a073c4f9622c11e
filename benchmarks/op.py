"""Attention alone: from queries, keys and values to the mixed tokens."""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from mmravlt import ops

from . import peer
from .command import (
    Size,
    add_command,
    add_condition,
    compare_sizes,
    condition_of,
    positive,
    words_of,
)
from .errors import BenchmarkError
from .measure import DTYPES, Condition, Figures, Step, copy_bandwidth
from .models import too_large
from .results import file_of

# Passes over N×C that nothing can save. Forward: queries twice, keys, values,
# result. Backward: queries and the gradient twice; keys and values once; three
# gradients written.
LEAST_PASSES = {'infer': 5, 'train': 5 + 9}

# Queries, keys, values of shape (B, heads, N, d), rows and columns of the map.
Op = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


def _rala(q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
    return ops.rala(q, k, v, _table(q, height, width))


def _rala_reference(q: Tensor, k: Tensor, v: Tensor, height: int, width: int):
    return ops.rala_reference(q, k, v, _table(q, height, width))


def _softmax(q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _release(op: Callable[..., Tensor], q, k, v, height: int, width: int) -> Tensor:
    return op(q, k, v, *_dense_tables(height, width, q.shape[-1], q.device))


# The package keeps its tables from one call to the next, too.
@lru_cache(maxsize=1)
def _dense_tables(height: int, width: int, head_dim: int, device: torch.device):
    return [x.to(device) for x in peer.dense_tables(height, width, head_dim)]


def _fla_rala(q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
    """RALA around the kernel of fla-org/flash-bidirectional-linear-attention.

    That kernel does the two products and the denominator; the positive map, the
    weights of the keys and RoPE are PyTorch operations before it.
    """
    kernel = import_module(FLA).decoupled_la
    table = _table(q, height, width)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    n, d = q.shape[-2:]
    logits = q.mean(dim=-2, keepdim=True) @ k.mT * d**-0.5
    k = k * (logits.softmax(dim=-1).mT * n).to(k.dtype)
    q_turned, k_turned = ops.rope2d_rotate(q, table), ops.rope2d_rotate(k, table)
    same = [x.to(v.dtype) for x in (q, k, q_turned, k_turned)]
    return kernel(*same, v, scale=1 / n)


def _table(q: Tensor, height: int, width: int):
    return ops.rope2d_table(height, width, q.shape[-1], q.device)


FLA = 'flash_bla.ops.linear_attn.decoupled'
OPS: dict[str, Op] = {
    'rala': _rala,
    'rala_reference': _rala_reference,
    'release_rala': partial(_release, peer.release_rala),
    'softmax': _softmax,
    'release_softmax': partial(_release, peer.release_softmax),
    'fla_rala': _fla_rala,
}


def check_names(names: list[str]) -> None:
    """Make sure that all names are known.

    Raises:
        BenchmarkError: if one is not.
    """
    for name in names:
        if name not in OPS:
            raise BenchmarkError(f'there is no op {name}; known are {", ".join(OPS)}.')
    if len(set(names)) < len(names):
        raise BenchmarkError(f'a name stands twice in {" ".join(names)}; give it once.')


def reason_to_skip(
    name: str, size: tuple[int, int], heads: int, condition: Condition
) -> str | None:
    """A sentence if an op cannot run here, None if it can."""
    if name == 'fla_rala':
        try:
            import_module(FLA)
        except Exception as error:  # it imports Triton, which may refuse the machine
            return f'fla_rala is left out: {FLA} cannot be imported ({error}).'
        if condition.device == 'cpu':
            return 'fla_rala is left out: its kernel needs a GPU.'
    if name == 'release_softmax' and condition.device == 'cpu':
        tokens = math.prod(size)
        needed = 2 * condition.batch * heads * tokens**2 * 4
        return too_large(name, size, tokens, needed)
    return None


def op_step(
    name: str, size: tuple[int, int], head_dim: int, heads: int, condition: Condition
) -> Step:
    """A step of attention on random tokens.

    Queries, keys and values lie as in the model: side by side in one map of
    channels_last layout.

    Args:
        name (str): one of :data:`OPS`.
        size (tuple[int, int]): rows and columns of the map, in tokens.
        head_dim (int): channels of one head.
        heads (int): number of heads.
        condition (Condition): mode, device, type, batch.
    """
    torch.manual_seed(0)
    like = dict(device=condition.device, dtype=DTYPES[condition.dtype])
    shape = (condition.batch, math.prod(size), 4, heads, head_dim)
    inputs = [
        x.transpose(1, 2).detach() for x in torch.randn(shape, **like).unbind(2)[:3]
    ]
    op = partial(OPS[name], *inputs, *size)
    if condition.mode == 'infer':
        return Step(op, condition, lambda: ())
    for x in inputs:
        x.requires_grad_()
    gradient = torch.randn_like(inputs[0], memory_format=torch.contiguous_format)

    def run() -> tuple[Tensor, Tensor]:
        y = op()
        return y, gradient.to(y.dtype)

    return Step(run, condition, lambda: inputs)


def least_bytes(
    size: tuple[int, int], head_dim: int, heads: int, condition: Condition
) -> int:
    """Bytes that must be moved whatever the kernel: :data:`LEAST_PASSES`."""
    elements = condition.batch * math.prod(size) * heads * head_dim
    width = DTYPES[condition.dtype].itemsize
    return LEAST_PASSES[condition.mode] * elements * width


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(subparsers, 'op', run_op, 'attention alone')
    command.add_argument(
        '--models',
        nargs='+',
        default=['rala', 'rala_reference', 'release_rala', 'softmax', 'fla_rala'],
        help=f'out of {", ".join(OPS)}',
    )
    command.add_argument('--head-dim', type=positive, default=64)
    command.add_argument('--heads', type=positive, default=1)
    add_condition(command, 'of the map in tokens; 56 112 200x320 by default', False)


def run_op(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    check_names(args.models)
    if args.head_dim % 4:
        raise BenchmarkError(f'--head-dim is {args.head_dim}; give a multiple of 4.')
    sizes = args.sizes or [(56, 56), (112, 112), (200, 320)]
    shape = dict(heads=args.heads)
    bandwidth = copy_bandwidth(args.device)

    def add_least(here: Size, figures: dict[str, Figures]) -> None:
        """The time of the least bytes, as if it were a contestant."""
        least = least_bytes(here, args.head_dim, args.heads, condition)
        floor = least / bandwidth * 1e3
        ratios = ', '.join(
            f'{name} {statistics.median(one.times) / floor:.3g}'
            for name, one in figures.items()
            if one.times
        )
        print(
            f'{here[0]}x{here[1]}: the least is {LEAST_PASSES[args.mode]} passes '
            f'over N×C, {least / 1e6:.4g} MB; at the {bandwidth / 1e9:.4g} GB/s of a '
            f'copy {floor:.3g} ms. Times as long: {ratios}.'
        )
        runs = max(len(one.times) for one in figures.values())
        figures['least_bytes'] = Figures([floor] * runs)

    compare_sizes(
        args,
        args.models,
        sizes,
        lambda name, here: reason_to_skip(name, here, condition=condition, **shape),
        lambda name, here: partial(
            op_step, name, here, args.head_dim, args.heads, condition
        ),
        file_of(
            args.out,
            *words_of(args, sizes),
            f'heads{args.heads}_d{args.head_dim}',
        ),
        condition,
        add_least,
    )
