"""The command ``compile``: problems and a table from what :mod:`.compiling` finds."""

import argparse
import itertools
import math
import os
import sys
from dataclasses import asdict

from mmravlt.analysis.flops import markdown_table

from .command import add_command, add_out, positive
from .compiling import (
    CARDS,
    HEAD_DIMS,
    HEADS,
    LAYOUTS,
    SIZES,
    Case,
    case_of,
    compile_all,
)
from .errors import BenchmarkError
from .measure import DTYPES
from .op import LEAST_PASSES
from .results import Row, file_of, write_csv

# The table that is printed is of this card at this condition, N = 64,000.
HEADLINE = dict(capability=90, dtype='bfloat16', head_dim=64)
HEADLINE |= dict(layout='channels_last', heads=1)
INSTRUCTIONS_PER_SECOND = 4 * 132 * 1.755e9  # four a clock and multiprocessor
BYTES_PER_SECOND = 3.0e12


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers,
        'compile',
        run_compile,
        "RALA's Triton kernels by the compiler's own figures",
    )
    command.add_argument(
        '--cards',
        nargs='+',
        type=int,
        choices=list(CARDS),
        default=list(CARDS),
        help='compute capabilities without their point; no such card is needed',
    )
    command.add_argument(
        '--dtypes', nargs='+', choices=list(DTYPES), default=list(DTYPES)
    )
    command.add_argument('--head-dims', nargs='+', type=positive, default=HEAD_DIMS)
    command.add_argument(
        '--layouts',
        nargs='+',
        choices=LAYOUTS,
        default=LAYOUTS,
        help='of queries, keys and values in memory',
    )
    command.add_argument('--heads', nargs='+', type=positive, default=HEADS)
    command.add_argument(
        '--jobs', type=positive, default=os.cpu_count(), help='processes at a time'
    )
    add_out(command)


def run_compile(args: argparse.Namespace) -> None:
    names = 'cards', 'dtypes', 'head_dims', 'heads', 'layouts'
    wanted = [list(dict.fromkeys(getattr(args, name))) for name in names]
    for head_dim in args.head_dims:
        if not 32 <= head_dim <= 128 or head_dim % 4:
            raise BenchmarkError(
                f'--head-dims names {head_dim}; give multiples of 4 from 32 to 128.'
            )
    cases = [Case(*values) for values in itertools.product(*wanted)]
    words = [
        f'{prefix}{values[0]}' if len(values) == 1 else f'{len(values)}{name}'
        for name, values, prefix in zip(
            names, wanted, ('sm', '', 'd', 'heads', ''), strict=True
        )
    ]
    path = file_of(args.out, 'compile', *words)

    def keep(rows: list[Row]) -> None:
        write_csv(path, rows)
        done = len(set(map(case_of, rows)))
        print(f'\r{done} of {len(cases)} cases', end='', file=sys.stderr, flush=True)

    rows = compile_all(cases, args.jobs, keep)
    print(file=sys.stderr)
    found = problems(rows)
    for problem in found:
        print(problem)
    if summary := table(rows):
        print(f'\n{summary}\n')
    print(f'kernels: {len(rows)}, written to {path}')
    if found:
        raise BenchmarkError(f'{len(found)} of {len(rows)} kernels are not right.')


def problems(rows: list[Row]) -> list[str]:
    """A line for each kernel that would fail or be slow without need."""
    found = []
    for row in rows:
        what = []
        if row['error']:
            what.append(f'does not compile ({row["error"]})')
        elif not row['fits']:
            what.append(f'does not fit: {row["shared_bytes"]} bytes of shared memory')
        if row['stack_bytes'] and row['head_dim'] <= 64:
            what.append(f'spills {row["stack_bytes"]} bytes a thread')
        condition = ' '.join(f'{key} {row[key]}' for key in asdict(case_of(row)))
        found += [f'{row["kernel"]}, {condition}: {text}' for text in what]
    return found


def table(rows: list[Row]) -> str | None:
    """The condition :data:`HEADLINE` as a Markdown table, ``None`` without it.

    Beside the time in which the instructions of N = 64,000 tokens could be issued, at
    best, stands the time of the bytes that no kernel could save.
    """
    rows = [row for row in rows if HEADLINE.items() <= row.items()]
    rows = [row for row in rows if row['tokens'] == math.prod(SIZES[0])]
    if not rows:
        return None
    columns = ['registers', 'stack_bytes', 'shared_bytes', 'blocks_per_sm']
    columns += ['occupancy', 'instructions_per_token', 'barriers_per_32_tokens']
    columns += ['second_wave_at']
    lines, totals = [], {'forward': 0.0, 'backward': 0.0}
    for row in rows:
        instructions = (row['instructions_per_token'] or 0) * row['tokens']
        issue = instructions / INSTRUCTIONS_PER_SECOND * 1e6
        totals[row['direction']] += issue
        figures = [str(row[column]) for column in columns]
        lines.append([row['kernel'], *figures, f'{issue:.1f}' if issue else '', ''])
    inference, training = LEAST_PASSES['infer'], LEAST_PASSES['train']
    passes = {'forward': inference, 'backward': training - inference}
    map_bytes = rows[0]['tokens'] * rows[0]['head_dim']
    map_bytes *= DTYPES[rows[0]['dtype']].itemsize
    for direction, issue in totals.items():
        moved = passes[direction] * map_bytes / BYTES_PER_SECOND * 1e6
        empty = [''] * len(columns)
        lines.append([f'{direction} in all', *empty, f'{issue:.1f}', f'{moved:.1f}'])
    headings = [column.replace('_', ' ') for column in columns]
    return markdown_table(['kernel', *headings, 'issue µs', 'bytes µs'], lines)
