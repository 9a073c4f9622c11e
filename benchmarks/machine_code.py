"""What the machine code of a compiled Triton kernel says, by NVIDIA's own tools."""

import math
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path


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


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread."""
    found = re.search(r'REG:(\d+) STACK:(\d+)', _cuobjdump('-res-usage', cubin))
    return int(found[1]), int(found[2])


def token_loop(cubin: bytes, ttgir: str) -> tuple[int, int] | None:
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
