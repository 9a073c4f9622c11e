"""What the compiler says of RALA's Triton kernels, for cards that are not at hand.

The kernels are launched as always, from :func:`mmravlt.ops.rala_triton.rala` and its
backward pass, through Triton's own launcher; but in place of a driver, a stand-in
names the card, and every launch ends once its kernel is compiled. So the numbers of
programs, what the kernels are specialised for and the options are the true ones, and
memory is never touched. Registers, stack and instructions are read from the machine
code with the tools that Triton brings along.

What needs Triton runs in processes of its own, because Triton reads once, when it is
imported, whether it is to interpret kernels, and because its compiler can end the
process that it runs in.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from mmravlt.analysis.flops import markdown_table

from .measure import DTYPES
from .op import LEAST_PASSES
from .results import Row

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, '-m', 'benchmarks.compiling']


@dataclass(frozen=True)
class Card:
    """A compute capability and a card that has it.

    All have 65,536 registers per multiprocessor, handed out to warps by 256 in four
    parts, and keep 1 KiB of shared memory for each block of threads. Origin: "CUDA
    C++ Programming Guide", technical specifications per compute capability, and
    ``cuda_occupancy.h`` of CUDA 13.0. The number of multiprocessors is the named
    card's; only the number of programs depends on it.
    """

    name: str
    multiprocessors: int
    shared_kib: int  # of a multiprocessor; a block has at most 1 KiB less
    warps: int  # of a multiprocessor, at most
    blocks: int  # likewise

    def resident(self, registers: int, shared: int, warps: int, tensor: int) -> int:
        """Blocks of threads that a multiprocessor holds at a time.

        Args:
            registers (int): of a thread.
            shared (int): bytes of shared memory of a block.
            warps (int): of a block.
            tensor (int): columns of tensor memory of a block, of 512.
        """
        if shared > (self.shared_kib - 1) * 1024:
            return 0
        of_warp = math.ceil(registers * 32 / 256) * 256
        limits = [
            65536 // 4 // of_warp * 4 // warps,
            self.shared_kib * 1024 // (math.ceil((shared + 1024) / 128) * 128),
            self.warps // warps,
            self.blocks,
        ]
        if tensor:
            limits.append(512 // tensor)
        return min(limits)


#: By compute capability: all that 'auto' takes and Triton has a name for.
CARDS = {
    80: Card('A100', 108, 164, 64, 32),
    86: Card('RTX 3090', 82, 100, 48, 16),
    89: Card('RTX 4090', 128, 100, 48, 24),
    90: Card('H100 SXM', 132, 228, 64, 32),
    100: Card('B200', 148, 228, 64, 32),
    103: Card('B300', 148, 228, 64, 32),
    120: Card('RTX 5090', 170, 100, 48, 24),
}
HEAD_DIMS = [32, 48, 56, 64, 80, 96, 112, 128]
LAYOUTS = ['channels_last', 'nchw', 'unaligned']
HEADS = [1, 2]
# Stage 1 of a detector at 800×1280, and a map so small that one program takes it.
SIZES = [(200, 320), (4, 8)]
# Images times heads of RAVLT's stages, and of small batches.
PRODUCTS = [1, 2, 4, 5, 7, 8, 10, 14, 16, 20]

# The table that is printed is of this card at this condition, N = 64,000.
HEADLINE = dict(capability=90, dtype='bfloat16', head_dim=64)
HEADLINE |= dict(layout='channels_last', heads=1)
INSTRUCTIONS_PER_SECOND = 4 * 132 * 1.755e9  # four a clock and multiprocessor
BYTES_PER_SECOND = 3.0e12


@dataclass(frozen=True)
class Case:
    """What the kernels are compiled for."""

    capability: int
    dtype: str
    head_dim: int
    heads: int
    layout: str


def compile_all(
    cases: list[Case],
    jobs: int,
    keep: Callable[[list[Row]], None] = lambda rows: None,
    count: bool = True,
) -> list[Row]:
    """Compile all kernels for all cases.

    Args:
        cases (list[Case]): for what.
        jobs (int): processes at a time.
        keep (Callable): is given all rows so far, after each case.
        count (bool): whether to count instructions, a third of the time.

    Returns:
        list[Row]: one for each kernel and case, see :func:`_row`.
    """
    rows = {case: [] for case in cases}
    one_at_a_time = Lock()

    def work(share: list[Case]) -> None:
        for case, found in _in_a_process(share, count, folder):
            with one_at_a_time:
                rows[case] = found
                keep([row for case in cases for row in rows[case]])

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(work, cases[i::jobs]) for i in range(jobs)]:
            done.result()
    return [row for case in cases for row in rows[case]]


def _in_a_process(
    cases: list[Case], count: bool, folder: str
) -> Iterator[tuple[Case, list[Row]]]:
    """Rows of each case from a process without Triton's interpreter."""
    environment = {**os.environ, 'TRITON_CACHE_DIR': folder, 'OMP_NUM_THREADS': '1'}
    environment.pop('TRITON_INTERPRET', None)
    while cases:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        # The compiler says much on stderr where it fails; a full pipe would block it.
        with ThreadPoolExecutor(1) as reader:
            complaints = reader.submit(process.stderr.read)
            json.dump([count, [asdict(case) for case in cases]], process.stdin)
            process.stdin.close()
            for line in process.stdout:
                if line.startswith('{"rows"'):
                    case, *cases = cases
                    yield case, json.loads(line)['rows']
        process.wait()
        if cases:
            case, *cases = cases
            last = complaints.result().strip().splitlines()[-1:]
            error = f'the process ended with {process.returncode}: {"".join(last)}'
            yield case, [_row(case, '', error=error)]


def _row(case: Case, kernel: str, **figures) -> Row:
    """A row of the CSV file; figures that there are not stay empty.

    ``direction`` is forward or backward. ``stack_bytes`` of a thread are registers
    spilled to memory. ``blocks_per_sm`` are resident at a time, and ``occupancy`` is
    their share of the warps that could be. ``instructions_per_token`` counts those of
    all warps in the loop over tokens, both sides of a branch included, and
    ``barriers_per_32_tokens`` the barriers that a block comes to. ``programs`` are
    launched, and ``second_wave_at`` names the products of batch and heads, out of
    :data:`PRODUCTS`, at which they are more than the card holds at a time.
    """
    columns = 'direction tokens tile num_warps registers stack_bytes shared_bytes'
    columns += ' fits blocks_per_sm occupancy instructions_per_token'
    columns += ' barriers_per_32_tokens programs second_wave_at triton error'
    row = {**asdict(case), 'kernel': kernel, **dict.fromkeys(columns.split(), '')}
    assert not set(figures) - set(row)
    return row | figures


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


def case_of(row: Row) -> Case:
    """What the kernel of a row was compiled for."""
    return Case(**{field.name: row[field.name] for field in fields(Case)})


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


# Below runs in a process of its own.


@dataclass
class _Launch:
    name: str
    kernel: object  # compiled; None if that failed
    grid: tuple[int, ...]
    arguments: list
    error: str
    direction: str

    @property
    def key(self) -> tuple:
        """Equal where the same kernel was compiled in the same way."""
        return self.name, self.kernel and self.kernel.hash


class _StandInDriver:
    """As much of a driver as Triton's launcher asks for before it launches."""

    def __init__(self) -> None:
        self.capability = 90

    def get_current_device(self) -> int:
        return self.capability  # under which Triton keeps what it compiled

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget('cuda', self.capability, 32)


class _Recorder:
    """Lets the host code launch its kernels, compiles them and notes the launches."""

    def __init__(self) -> None:
        import triton

        from mmravlt.ops import kernel_check, rala_triton

        self.module = rala_triton
        self.driver = _StandInDriver()
        self.launches: list[_Launch] = []
        self.direction = ''
        triton.runtime.driver.set_active(self.driver)
        run = triton.runtime.JITFunction.run
        recorder = self

        def compile_only(function, *arguments, grid, warmup, **options):
            kernel, error = None, ''
            try:
                kernel = run(function, *arguments, grid=grid, warmup=True, **options)
            except Exception as failure:  # of the compiler's many kinds
                # After a piece of the code comes what is wrong with it.
                error = ' '.join(f'{type(failure).__name__}: {failure}'.split())[-300:]
            name = function.__name__.strip('_').removesuffix('_kernel')
            grid = grid if isinstance(grid, tuple | list) else (grid,)
            recorder.launches.append(
                _Launch(name, kernel, grid, arguments, error, recorder.direction)
            )

        triton.runtime.JITFunction.run = compile_only
        rala_triton.unsupported_reason = lambda *_: None  # the tensors are on no GPU
        kernel_check._fault = lambda *_: None  # nothing is computed

    def launch(self, case: Case, size: tuple[int, int], batch: int) -> list[_Launch]:
        """All launches of a forward and a backward pass."""
        self.driver.capability = case.capability
        multiprocessors = CARDS[case.capability].multiprocessors
        self.module._multiprocessors = lambda *_: multiprocessors
        self.module._capability = lambda *_: case.capability // 10
        self.launches = []
        q, k, v, dy = _inputs(case, size, batch)
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        table = [torch.empty(n, case.head_dim // 4, 2) for n in size]
        self.direction = 'forward'
        y = self.module.rala(*inputs, tuple(table))
        self.direction = 'backward'
        torch.autograd.grad(y, inputs, dy)
        return self.launches


def _inputs(case: Case, size: tuple[int, int], batch: int) -> list[torch.Tensor]:
    """q, k, v and dy, whose memory is reserved and never touched."""
    n, like = math.prod(size), dict(dtype=DTYPES[case.dtype])
    heads, d = case.heads, case.head_dim
    if case.layout == 'nchw':
        maps = torch.empty(batch, 4, heads, d, n, **like)
        return [x.mT for x in maps.unbind(1)]
    if case.layout == 'channels_last':
        maps = torch.empty(batch, n, 4, heads, d, **like)
    else:  # one element too far and rows of an odd length
        width = 4 * heads * d
        maps = torch.empty(batch * n * (width + 1) + 1, **like)[1:]
        maps = maps.view(batch, n, width + 1)[..., :width].unflatten(-1, (4, heads, d))
    return [x.transpose(1, 2) for x in maps.unbind(2)]


def _compile(case: Case, recorder: _Recorder, count: bool) -> list[Row]:
    """Rows of all kernels of one case, in the order of their launches."""
    large, small = SIZES
    launches = recorder.launch(case, large, 1)
    rows = [_row_of(launch, case, large, count) for launch in launches]
    for number in PRODUCTS:
        if number % case.heads:
            continue
        others = recorder.launch(case, large, number // case.heads)
        for row, launch in zip(rows, others, strict=False):
            held = row['blocks_per_sm'] or math.inf
            held *= CARDS[case.capability].multiprocessors
            if launch.name == row['kernel'] and math.prod(launch.grid) > held:
                row['second_wave_at'] = f'{row["second_wave_at"]} {number}'.strip()
    # Kernels that the small map alone has.
    known = {launch.key for launch in launches}
    rows += [
        _row_of(launch, case, small, count)
        for launch in recorder.launch(case, small, 1)
        if launch.key not in known
    ]
    return rows


def _row_of(launch: _Launch, case: Case, size: tuple[int, int], count: bool) -> Row:
    n_tokens = math.prod(size)
    figures = dict(fits=False, error=launch.error)
    if launch.kernel is not None:
        figures = _figures(launch, case, count)
    return _row(
        case,
        launch.name,
        direction=launch.direction,
        tokens=n_tokens,
        programs=math.prod(launch.grid),
        **figures,
    )


def _figures(launch: _Launch, case: Case, count: bool) -> Row:
    """What the compiled kernel of a launch takes, as :func:`_row` names it."""
    kernel, card = launch.kernel, CARDS[case.capability]
    meta = kernel.metadata
    registers, stack = _resources(kernel.asm['cubin'])
    blocks = card.resident(
        registers, meta.shared, meta.num_warps, getattr(meta, 'tmem_size', 0)
    )
    figures = dict(
        triton=meta.triton_version,
        num_warps=meta.num_warps,
        registers=registers,
        stack_bytes=stack,
        shared_bytes=meta.shared,
        fits=blocks > 0,
        blocks_per_sm=blocks,
        occupancy=round(blocks * meta.num_warps / card.warps, 2),
    )
    # The kernels call what they hold at a time of the tokens BLOCK.
    constants = {
        kernel.src.fn.arg_names[i]: x for (i,), x in kernel.src.constants.items()
    }
    tile = constants.get('BLOCK')
    counted = count and tile and _token_loop(kernel.asm['cubin'], kernel.asm['ttgir'])
    if counted:
        instructions, barriers = counted
        # Axis 2 of a grid shares out channels, so each of its programs has all tokens.
        warps = meta.num_warps * math.prod(launch.grid[2:])
        figures['tile'] = tile
        figures['instructions_per_token'] = round(instructions * warps / tile, 1)
        figures['barriers_per_32_tokens'] = round(barriers * 32 / tile, 2)
    return figures


@cache
def _cuobjdump(option: str, cubin: bytes) -> str:
    """What NVIDIA's tool prints of machine code."""
    from triton.backends import nvidia

    tool = Path(nvidia.__path__[0]) / 'bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        # Of what it does not know, such as the code of 10.3 in CUDA 12.8, it prints
        # nothing.
        return subprocess.run(
            [tool, option, file.name], capture_output=True, text=True
        ).stdout


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread."""
    found = re.search(r'REG:(\d+) STACK:(\d+)', _cuobjdump('-res-usage', cubin))
    return int(found[1]), int(found[2])


def _token_loop(cubin: bytes, ttgir: str) -> tuple[int, int] | None:
    """Instructions and barriers of one turn of the loop over tokens, of one warp.

    It is the largest of the outermost loops. Loops inside of it count as often as
    Triton's code of them says.

    Returns:
        tuple[int, int] | None: ``None`` where there is none, or an inner loop's
        number of turns is not known.
    """
    code = [
        (int(m[1], 16), m[2])
        for m in re.finditer(
            r'/\*([0-9a-f]{4,})\*/\s+(.+?);', _cuobjdump('-sass', cubin)
        )
    ]
    loops = []
    for at, text in code:
        jump = re.search(r'\bBRA\b.*?0x([0-9a-f]+)', text)
        if jump and int(jump[1], 16) < at:
            loops.append((int(jump[1], 16), at))
    if not loops:
        return None
    start, end = max(loops, key=lambda loop: loop[1] - loop[0])
    inner = sorted(loop for loop in set(loops) if start <= loop[0] and loop[1] <= end)
    inner.remove((start, end))
    turns = _turns_of_inner_loops(ttgir)
    if len(turns) != len(inner):  # some are unrolled, and which is not known
        turns = [max(turns, default=None)] * len(inner)
    if None in turns:
        return None
    counts = [0, 0]
    for at, text in code:
        if start <= at <= end:
            times = math.prod(
                n
                for (first, last), n in zip(inner, turns, strict=True)
                if first <= at <= last
            )
            counts[0] += times
            counts[1] += times * ('BAR.SYNC' in text)
    return counts[0], counts[1]


def _turns_of_inner_loops(ttgir: str) -> list[int | None]:
    """Numbers of turns of the loops inside the largest one, in their order."""
    constants = {
        m[1]: int(m[2])
        for m in re.finditer(r'(%[\w-]+) = arith\.constant (-?\d+) : ', ttgir)
    }
    open_loops, loops = [], []  # depth of braces; (line, last line, turns) of each
    depth = 0
    for number, line in enumerate(ttgir.splitlines()):
        found = re.search(r'scf\.for \S+ = (\S+) to (\S+) step (\S+)', line)
        opened = depth
        depth += line.count('{') - line.count('}')
        if found:
            values = [constants.get(name) for name in found.groups()]
            turns = None
            if None not in values:
                turns = math.ceil((values[1] - values[0]) / values[2])
            open_loops.append((opened, len(loops)))
            loops.append([number, number, turns])
        while open_loops and depth <= open_loops[-1][0]:
            loops[open_loops.pop()[1]][1] = number
    if not loops:
        return []
    first, last, _ = max(loops, key=lambda loop: loop[1] - loop[0])
    return [turns for begin, end, turns in loops if first < begin and end <= last]


def _main() -> None:
    """Compile for the cases on stdin, and print a line of JSON for each."""
    count, cases = json.load(sys.stdin)
    recorder = _Recorder()
    for case in cases:
        rows = _compile(Case(**case), recorder, count)
        print(json.dumps({'rows': rows}), flush=True)


if __name__ == '__main__':
    _main()
