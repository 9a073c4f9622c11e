"""Everything that a GPU has to show, within ten minutes."""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from mmravlt import ops
from mmravlt.analysis.flops import markdown_table

from .command import add_command, add_out, positive
from .errors import BenchmarkError
from .measure import DTYPES
from .results import FOLDER, write_csv

ROOT = Path(__file__).resolve().parents[1]

# Rows, columns, heads, channels of a head: the stages of T at 800×1280, and the
# first of B.
MAPS = [(200, 320, 1, 64), (100, 160, 2, 64), (50, 80, 4, 64), (200, 320, 1, 96)]

_OP = ('op', '--sizes', '200x320', '--dtype', 'bfloat16', '--models')
_OWN = ('rala', 'release_rala', 'rala_reference', 'softmax')
_TRAINING = ('backbone', '--mode', 'train', '--dtype', 'bfloat16')
_TRAINING += ('--sizes', '800x1280', '--models')
_SWEEP = ('backbone', '--dtype', 'bfloat16', '--models')
_SWEEP += ('ravlt_t', 'ravlt_t_llll', 'release_t', 'release_t_llll')

# Title, most seconds, arguments; the most telling first, and last what another
# project's kernels, alone with ours, could spoil.
PARTS = [
    ('errors against float64', 40, ('gpu-errors',)),
    ('op, forward', 30, (*_OP, *_OWN)),
    ('op, forward and backward', 30, (*_OP, *_OWN, '--mode', 'train')),
    ('sweep', 80, _SWEEP),
    *(
        (
            f'training {arch.upper()}, batch {batch}',
            40,
            (*_TRAINING, f'ravlt_{arch}', f'release_{arch}', 'swin_t')
            + ('--batch', str(batch)),
        )
        for batch in (2, 16)
        for arch in 'ts'
    ),
    ('parts', 20, ('parts', '--dtype', 'bfloat16')),
    *(
        (
            f'fla, {mode}',
            20,
            (*_OP, 'rala', 'fla_rala', '--mode', mode, '--out', f'op_fla_{mode}.csv'),
        )
        for mode in ('infer', 'train')
    ),
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
    no other part with it. What a part had written when its time was up stays. In the
    end all that was written and printed lies in ``gpu_results.tgz`` in the folder,
    too.

    Args:
        out (str | None): folder of the CSV files and plots.
        budget (float): seconds for everything.
    """
    require_gpu()
    folder = Path(out).resolve() if out else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + budget
    log = folder / 'gpu.log'
    log.write_text('')
    began = log.stat().st_mtime
    lines = []
    try:
        for title, seconds, command in commands(folder):
            print(f'\n## {title}\n', flush=True)
            result = _run(command, min(seconds, deadline - time.monotonic()), log)
            print(f'{title}: {result}', flush=True)
            lines.append([title, result])
        plots = sorted(folder.glob('backbone_*_cuda_*_sweep_*.csv'))
        if plots:
            command = [sys.executable, '-m', 'benchmarks', 'plot', *map(str, plots)]
            lines.append(['plot', _run(command, 20, log)])
    finally:
        summary = markdown_table(['part', 'result'], lines)
        (folder / 'gpu.md').write_text(f'{summary}\n', encoding='utf-8')
        print(f'\n{summary}\n\nall of it is in {pack(folder, began)}')


def commands(folder: Path) -> list[tuple[str, float, list[str]]]:
    """Title, most seconds and command of each part, in their order."""
    tests = [sys.executable, '-m', 'pytest', '-q', '-k', 'cuda or gpu']
    tests += ['tests/test_gpu.py', 'tests/test_ops', 'tests/test_compat']
    # To compile takes most of the time, and each process compiles for itself.
    if find_spec('xdist'):
        tests += ['-n', str(min(8, os.cpu_count() or 1))]
    found = [('tests', 150, tests)]
    for title, seconds, arguments in PARTS:
        command = [sys.executable, '-m', 'benchmarks', *arguments]
        if '--out' in arguments:
            command[-1] = str(folder / command[-1])
        else:
            command += ['--out', str(folder)]
        if 'gpu-errors' not in arguments:
            command += ['--device', 'cuda']
        found.append((title, seconds, command))
    return found


def pack(folder: Path, since: float) -> Path:
    """Put the files of a folder that are no older than ``since`` into an archive.

    Args:
        folder (Path): where the files lie; folders inside of it are left out.
        since (float): seconds since 1970.
    """
    archive = folder / 'gpu_results.tgz'
    with tarfile.open(archive, 'w:gz') as tar:
        for path in sorted(folder.iterdir()):
            new = path.is_file() and path.stat().st_mtime >= since
            if new and path != archive:
                tar.add(path, path.name)
    return archive


def _run(command: list[str], seconds: float, log: Path) -> str:
    """Run a command, whose output goes to the end of a file and is then shown."""
    if seconds < 5:
        return 'not run, the time is used up'
    start, written = time.monotonic(), log.stat().st_size
    with log.open('a') as file:
        # A session of its own, so that the processes it starts can end with it.
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except BaseException as error:
            _end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
    with log.open('rb') as file:
        file.seek(written)
        print(file.read().decode(errors='replace'), flush=True)
    took = f'{time.monotonic() - start:.0f} s'
    if status is None:
        return f'ended after its limit of {seconds:.0f} s'
    return f'done in {took}' if status == 0 else f'failed ({status}) after {took}'


def _end(process: subprocess.Popen) -> None:
    if hasattr(os, 'killpg'):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


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


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers, 'gpu', run_gpu, 'tests and measurements on a GPU in ten minutes'
    )
    command.add_argument(
        '--budget', type=positive, default=570, help='seconds for everything'
    )
    add_out(command)
    command = add_command(
        subparsers, 'gpu-errors', run_gpu_errors, 'errors of rala against float64'
    )
    add_out(command)


def run_gpu(args: argparse.Namespace) -> None:
    run_all(args.out, args.budget)


def run_gpu_errors(args: argparse.Namespace) -> None:
    require_gpu()
    errors(args.out)
