"""Everything that a GPU has to show, within ten minutes."""

import subprocess
import sys
import time
from pathlib import Path

import torch

from mmravlt import ops
from mmravlt.flops import markdown_table

from .errors import BenchmarkError
from .measure import DTYPES
from .results import FOLDER, write_csv

ROOT = Path(__file__).resolve().parents[1]

# Rows, columns, heads, channels of a head: the stages of T at 800×1280, and the
# first of B.
MAPS = [(200, 320, 1, 64), (100, 160, 2, 64), (50, 80, 4, 64), (200, 320, 1, 96)]

_OP = ('op', '--sizes', '200x320', '--dtype', 'bfloat16', '--models')
_OP += ('rala', 'release_rala', 'rala_reference', 'softmax', 'fla_rala')
_TRAINING = ('backbone', '--mode', 'train', '--dtype', 'bfloat16')
_TRAINING += ('--sizes', '800x1280', '--models')
_SWEEP = ('backbone', '--dtype', 'bfloat16', '--models')
_SWEEP += ('ravlt_t', 'ravlt_t_llll', 'release_t', 'release_t_llll')

# Title, most seconds, arguments.
PARTS = [
    ('errors against float64', 60, ('gpu-errors',)),
    ('op, forward', 50, _OP),
    ('op, forward and backward', 50, (*_OP, '--mode', 'train')),
    *(
        (
            f'training {arch.upper()}, batch {batch}',
            60,
            (*_TRAINING, f'ravlt_{arch}', f'release_{arch}', 'swin_t')
            + ('--batch', str(batch)),
        )
        for batch in (2, 16)
        for arch in 'ts'
    ),
    ('parts', 30, ('parts', '--dtype', 'bfloat16')),
    ('sweep', 100, _SWEEP),
]


def require_gpu() -> None:
    """Raise :class:`BenchmarkError` where PyTorch sees no GPU."""
    if not torch.cuda.is_available():
        raise BenchmarkError(
            'PyTorch sees no GPU here; run it on a machine with one, or measure the '
            'CPU with op, backbone and model.'
        )


def run_all(out: str | None, budget: float) -> None:
    """Run tests and measurements one after the other, each in its own process.

    A process of its own for each part, so that a kernel that fails or hangs takes
    no other part with it. What a part had written when its time was up stays.

    Args:
        out (str | None): folder of the CSV files and plots.
        budget (float): seconds for everything.
    """
    require_gpu()
    folder = Path(out).resolve() if out else FOLDER
    deadline = time.monotonic() + budget
    tests = [sys.executable, '-m', 'pytest', '-q', 'tests/test_ops', '-k', 'cuda']
    commands = [('tests of the ops', 150, tests)]
    for title, seconds, arguments in PARTS:
        command = [sys.executable, '-m', 'benchmarks', *arguments]
        command += ['--out', str(folder)]
        if 'gpu-errors' not in arguments:
            command += ['--device', 'cuda']
        commands.append((title, seconds, command))
    lines = []
    for title, seconds, command in commands:
        print(f'\n## {title}\n', flush=True)
        result = _run(command, min(seconds, deadline - time.monotonic()))
        print(f'{title}: {result}', flush=True)
        lines.append([title, result])
    plots = sorted(folder.glob('backbone_*_cuda_*_sweep_*.csv'))
    if plots:
        command = [sys.executable, '-m', 'benchmarks', 'plot', *map(str, plots)]
        lines.append(['plot', _run(command, 60)])
    print(f'\n{markdown_table(["part", "result"], lines)}')


def _run(command: list[str], seconds: float) -> str:
    if seconds < 5:
        return 'not run, the time is used up'
    start = time.monotonic()
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f'ended after its limit of {seconds:.0f} s'
    took = f'{time.monotonic() - start:.0f} s'
    return f'done in {took}' if status == 0 else f'failed ({status}) after {took}'


def errors(out: str | None, device: str = 'cuda', maps=MAPS) -> list[dict]:
    """Largest errors of ``rala`` at detection sizes against float64.

    Inputs are rounded to the type first, so the error is that of the computation.

    Args:
        out (str | None): folder of the CSV file.
        device (str): 'cuda', or 'cpu' to test this function.
        maps (list): rows, columns, heads and channels of a head.

    Returns:
        list[dict]: for each map, type and tensor the largest error relative to
        the tensor's largest value.
    """
    rows = []
    for height, width, heads, head_dim in maps:
        for dtype in DTYPES.values():
            torch.manual_seed(0)
            table = ops.rope2d_table(height, width, head_dim, torch.device(device))
            shape = (1, heads, height * width, head_dim)
            rounded = [torch.randn(shape, device=device).to(dtype) for _ in range(4)]
            got = _with_gradients(ops.rala, rounded, table)
            wide = [x.double() for x in rounded]
            true = _with_gradients(ops.rala_reference, wide, table)
            row = dict(height=height, width=width, heads=heads, head_dim=head_dim)
            row['dtype'] = str(dtype).removeprefix('torch.')
            for name, x, y in zip(('y', 'dq', 'dk', 'dv'), got, true, strict=True):
                row[name] = f'{(x - y).abs().max() / y.abs().max():.1e}'
            rows.append(row)
    write_csv((Path(out) if out else FOLDER) / f'op_errors_{device}.csv', rows)
    print(markdown_table(list(rows[0]), [list(map(str, r.values())) for r in rows]))
    return rows


def _with_gradients(op, tensors, table) -> list[torch.Tensor]:
    *inputs, gradient = tensors
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = op(*inputs, table)
    return [y.detach(), *torch.autograd.grad(y, inputs, gradient)]
