"""What the sub-commands share: options, the condition that they make, comparisons."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from .errors import BenchmarkError
from .measure import DTYPES, Condition, Figures, Step, compare
from .results import name_of_sizes, report, rows_of_size, write_csv

LEAST_RUNS = 5

Size = tuple[int, int]


def size(text: str) -> Size:
    """Height and width from '800x1280', or a square from '512'."""
    sides = text.split('x') if 'x' in text else [text, text]
    if len(sides) != 2 or not all(s.isdecimal() and int(s) > 0 for s in sides):
        raise argparse.ArgumentTypeError(
            f'{text} is no size; give height x width such as 800x1280, or one side'
        )
    return int(sides[0]), int(sides[1])


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number from 1')
    return int(text)


def add_command(
    subparsers: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    """Add a sub-command that ``run`` carries out."""
    command = subparsers.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def add_out(command: argparse.ArgumentParser) -> None:
    """Add where results go."""
    command.add_argument(
        '--out',
        help='a .csv file, or a folder in which files are named by their '
        'condition; benchmarks/results by default',
    )


def add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument('--threads', type=positive, help='of PyTorch on the CPU')


def add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')


def add_dtype_and_runs(command: argparse.ArgumentParser) -> None:
    """Add how one mode is measured: device, type, batch, runs, threads, results."""
    add_device(command)
    command.add_argument('--dtype', choices=list(DTYPES), default='float32')
    command.add_argument('--batch', type=positive, default=1)
    command.add_argument(
        '--runs', type=positive, default=LEAST_RUNS, help='of each contestant'
    )
    add_threads(command)
    add_out(command)


def add_condition(
    command: argparse.ArgumentParser, sizes: str, images: bool = True
) -> None:
    """Add the options of a measurement at given sizes.

    Args:
        command (argparse.ArgumentParser): of the sub-command.
        sizes (str): what the help says of ``--sizes``.
        images (bool): whether images go through whole backbones, whose batch
            statistics can be fixed.
    """
    command.add_argument('--mode', choices=['infer', 'train'], default='infer')
    command.add_argument('--sizes', nargs='+', type=size, metavar='HxW', help=sizes)
    add_dtype_and_runs(command)
    if images:
        command.add_argument(
            '--frozen-norms',
            action='store_true',
            help='train with fixed batch statistics',
        )


def use_device(args: argparse.Namespace) -> None:
    """Make sure that the device is there, and use as many threads as wanted.

    Raises:
        BenchmarkError: if PyTorch sees no GPU and one is wanted.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise BenchmarkError('--device is cuda, but PyTorch sees no GPU here.')
    if args.threads:
        torch.set_num_threads(args.threads)


def condition_of(args: argparse.Namespace) -> Condition:
    """Check and collect what all contestants share."""
    if args.runs < args.least_runs:
        raise BenchmarkError(
            f'--runs is {args.runs}; give at least {args.least_runs}, because the '
            'median of fewer says little.'
        )
    resident = getattr(args, 'resident', False)
    if resident and (
        args.device != 'cpu' or not Path('/proc/self/clear_refs').exists()
    ):
        raise BenchmarkError('--resident works with --device cpu on Linux only.')
    if getattr(args, 'optimize', False) and args.mode == 'train':
        raise BenchmarkError('--optimize is for --mode infer only.')
    use_device(args)
    return Condition(
        *(args.mode, args.device, args.dtype, args.batch, args.runs),
        frozen_norms=getattr(args, 'frozen_norms', False),
        resident=resident,
    )


def words_of(
    args: argparse.Namespace, sizes: list[Size], *what: str
) -> tuple[str, ...]:
    """The condition, as it stands in a file's name."""
    return (
        *(args.command, *what, args.mode, args.device, args.dtype),
        *(name_of_sizes(sizes), f'batch{args.batch}'),
        'frozen_norms' if getattr(args, 'frozen_norms', False) else '',
        'optimized' if getattr(args, 'optimize', False) else '',
    )


def compare_sizes(
    args: argparse.Namespace,
    names: list[str],
    sizes: list[Size],
    skip: Callable[[str, Size], str | None],
    make: Callable[[str, Size], Callable[[], Step]],
    path: Path,
    condition: Condition,
    extra: Callable[[Size, dict[str, Figures]], None] = lambda size, figures: None,
) -> None:
    """Compare contestants at every size; write after each, so that none is lost."""
    rows, said = [], set()
    stride = 1 if args.command == 'op' else 4
    for height, width in sizes:
        here = (height, width)
        makers = {}
        for name in names:
            if sentence := skip(name, here):
                if sentence not in said:
                    print(sentence)
                said.add(sentence)
            else:
                makers[name] = make(name, here)
        measured, sentences = compare(makers, condition, f'{height}x{width}')
        for sentence in sentences:
            print(sentence)
        figures = {name: measured.get(name, Figures()) for name in names}
        extra(here, figures)
        tokens = math.ceil(height / stride) * math.ceil(width / stride)
        rows += rows_of_size(figures, here, tokens, condition)
        write_csv(path, rows)
    report(path, rows)
