"""Where the time of a backbone goes."""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mmravlt.analysis.flops import markdown_table

from . import models
from .command import add_command, add_condition, condition_of, words_of
from .errors import BenchmarkError
from .measure import WARM_UP, Step
from .results import Row, file_of, write_csv

STAGES = ('1', '2', '3', '4')
DETECTION = (800, 1280)


@dataclass
class _Call:
    part: str
    stage: str  # '' outside the stages
    parent: int | None  # index of the call that this one is part of
    begin: object
    end: object = None


def named_parts(backbone: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Modules of a RAVLT or of its peer with the names of their part and stage.

    Only modules that exist are named; what else a module does counts as its rest.
    A RAVLT calls each convolution that has a hook by itself, so layer scales and
    residuals are steps of their own here.
    """
    yield backbone, 'other', ''
    yield backbone.patch_embed, 'patch_embed', ''
    for number, stage in zip(STAGES, backbone.layers, strict=False):
        for block in getattr(stage, 'blocks', ()):
            yield block, 'residuals, layer scale', number
            for name, child in block.named_children():
                if name.startswith('drop_path'):
                    continue
                inner = list(child.named_children()) if name in ('attn', 'ffn') else []
                rest = f'{name}, the rest' if inner else name
                yield child, rest, number
                for inner_name, grandchild in inner:
                    yield grandchild, f'{name}.{inner_name}', number
        if getattr(stage, 'downsample', None) is not None:
            yield stage.downsample, 'downsample', number
    norms = getattr(backbone, 'extra_norms', None)
    if isinstance(norms, nn.ModuleDict):
        norms = [norms[key] for key in sorted(norms)]
    for number, norm in zip(STAGES, norms or (), strict=False):
        yield norm, 'extra_norms', number


class PartTimer:
    """Times modules by hooks; each part without the parts inside it.

    Args:
        backbone (nn.Module): a RAVLT or its peer.
        device (str): 'cpu' or 'cuda'.
    """

    def __init__(self, backbone: nn.Module, device: str) -> None:
        self.device = device
        self.calls: list[_Call] = []
        self.open: list[int] = []
        for module, part, stage in named_parts(backbone):
            module.register_forward_pre_hook(self._enter(part, stage))
            module.register_forward_hook(self._leave)

    def _enter(self, part: str, stage: str):
        def hook(module, args) -> None:
            parent = self.open[-1] if self.open else None
            self.open.append(len(self.calls))
            self.calls.append(_Call(part, stage, parent, self._now()))

        return hook

    def _leave(self, module, args, output) -> None:
        self.calls[self.open.pop()].end = self._now()

    def _now(self) -> object:
        if self.device == 'cpu':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _milliseconds(self, call: _Call) -> float:
        if self.device == 'cpu':
            return (call.end - call.begin) * 1e3
        return call.begin.elapsed_time(call.end)

    def run(self, step: Step) -> dict[tuple[str, str], float]:
        """Milliseconds of each (part, stage) in one run of the step's forward."""
        self.calls.clear()
        step()
        step.reset()
        if self.device == 'cuda':
            torch.cuda.synchronize()
        result = defaultdict(float)
        for call in self.calls:
            own = self._milliseconds(call)
            result[call.part, call.stage] += own
            if call.parent is not None:
                around = self.calls[call.parent]
                result[around.part, around.stage] -= own
        return dict(result)


def measure_parts(step: Step) -> dict[tuple[str, str], float]:
    """Median milliseconds of each (part, stage) of a forward pass."""
    timer = PartTimer(step.model, step.condition.device)
    runs = WARM_UP + step.condition.runs
    runs = [timer.run(step) for _ in range(runs)][WARM_UP:]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def parts_rows(parts: dict[tuple[str, str], float]) -> list[Row]:
    """A row for each part and stage, with its share of the forward pass."""
    total = sum(parts.values())
    return [
        dict(part=part, stage=stage, median_ms=ms, percent=100 * ms / total)
        for (part, stage), ms in parts.items()
    ]


def parts_table(parts: dict[tuple[str, str], float]) -> str:
    """A Markdown table: parts by stage in milliseconds, and their shares."""
    total = sum(parts.values())
    lines = []
    for name in dict.fromkeys(part for part, _ in parts):
        row = [parts.get((name, stage)) for stage in STAGES]
        whole = sum(ms for (part, _), ms in parts.items() if part == name)
        cells = ['' if ms is None else f'{ms:.2f}' for ms in row]
        lines.append((whole, [name, *cells, f'{whole:.2f}', _percent(whole, total)]))
    lines.sort(key=lambda line: -line[0])
    sums = [sum(ms for (_, s), ms in parts.items() if s == x) for x in STAGES]
    last = ['total', *(f'{ms:.2f}' for ms in sums), f'{total:.2f}', '100 %']
    headings = ['part, ms', *(f'stage {number}' for number in STAGES), 'all', 'share']
    return markdown_table(headings, [*(line for _, line in lines), last])


def _percent(value: float, total: float) -> str:
    return f'{100 * value / total:.1f} %'


def operators_table(step: Step, device: str, count: int = 15) -> str:
    """A Markdown table of the PyTorch operators, or kernels, that take longest.

    Args:
        step (Step): run once, warm.
        device (str): 'cpu', or 'cuda' for kernels.
        count (int): lines of the table.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        if device == 'cuda':
            torch.cuda.synchronize()
    step.reset()
    times = []
    for average in profiler.key_averages():
        own = average.self_cpu_time_total
        if device == 'cuda':
            # torch before 2.4 has the older name.
            own = getattr(average, 'self_device_time_total', None)
            own = average.self_cuda_time_total if own is None else own
        times.append((own, average.key, average.count))
    times.sort(reverse=True)
    total = sum(own for own, _, _ in times)
    return markdown_table(
        ['operator or kernel', 'calls', 'ms', 'share'],
        [
            [key[:60], str(calls), f'{own / 1e3:.2f}', _percent(own, total)]
            for own, key, calls in times[:count]
        ],
    )


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers, 'parts', run_parts, 'where the time of a backbone goes'
    )
    command.add_argument('--model', default='ravlt_t', help='a ravlt or a release')
    add_condition(command, 'in pixels, one size; 800x1280 by default')


def run_parts(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    models.check_names([args.model], args.mode)
    if models.parse(args.model) is None:
        raise BenchmarkError(
            f'the parts of {args.model} are not known; name a ravlt or a release.'
        )
    sizes = args.sizes or [DETECTION]
    if len(sizes) > 1:
        raise BenchmarkError(f'parts takes one size; --sizes names {len(sizes)}.')
    step = models.backbone_step(args.model, sizes[0], condition)
    path = file_of(args.out, *words_of(args, sizes, args.model))
    # Hooks would be seen by the profiler, so operators come first.
    step()
    operators = operators_table(step, args.device)
    measured = measure_parts(step)
    write_csv(path, parts_rows(measured))
    print(f'\nForward pass of {args.model}:\n\n{parts_table(measured)}\n')
    print(f'The whole step by operators:\n\n{operators}\n\nwritten to {path}')
