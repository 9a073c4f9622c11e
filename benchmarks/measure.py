"""Time and memory of steps, interleaved in one process."""

import ctypes
import gc
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

WARM_UP = 2
MIB = 2**20
DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


@dataclass(frozen=True)
class Condition:
    """What is the same for all contestants.

    Args:
        mode (str): 'infer' or 'train' (forward and backward).
        device (str): 'cpu' or 'cuda'.
        dtype (str): 'float32', or 'bfloat16' or 'float16' with autocast.
        batch (int): images.
        runs (int): timed runs of each contestant.
        frozen_norms (bool): train with fixed batch statistics.
        resident (bool): measure the resident set in a child process, too.
    """

    mode: str = 'infer'
    device: str = 'cpu'
    dtype: str = 'float32'
    batch: int = 1
    runs: int = 5
    frozen_norms: bool = False
    resident: bool = False


class Step:
    """One forward pass, or one training step up to the gradients.

    Args:
        run (Callable): the forward pass, without arguments; in training it returns
            a scalar loss or a tuple of an output and its gradient.
        condition (Condition): mode, device and type.
        leaves (Callable): gives what gets gradients, parameters or inputs.
        model (nn.Module | None): what is run, if it is a module.
    """

    def __init__(
        self,
        run: Callable[[], object],
        condition: Condition,
        leaves: Callable[[], Iterable[Tensor]],
        model: nn.Module | None = None,
    ) -> None:
        self.run = run
        self.condition = condition
        self.leaves = leaves
        self.model = model

    def __call__(self) -> object:
        dtype = DTYPES[self.condition.dtype]
        autocast = nullcontext()
        if dtype is not torch.float32:
            autocast = torch.autocast(self.condition.device, dtype)
        if self.condition.mode == 'infer':
            with torch.inference_mode(), autocast:
                return self.run()
        with autocast:
            output = self.run()
        output, gradient = output if isinstance(output, tuple) else (output, None)
        output.backward(gradient)
        return None

    def reset(self) -> None:
        """Forget the gradients."""
        for leaf in self.leaves():
            leaf.grad = None


def module_step(
    model: nn.Module, run: Callable[[], object], condition: Condition
) -> Step:
    """A step of a model, put into the mode that the condition asks for."""
    model.train(condition.mode == 'train')
    if condition.frozen_norms:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    return Step(run, condition, model.parameters, model)


@dataclass
class Figures:
    """What was measured of one contestant.

    Args:
        times (list[float]): milliseconds of each run; empty if it could not run.
        peak (int | None): bytes, see :func:`peak_bytes`.
        resident (int | None): bytes, see :func:`resident_growth`.
    """

    times: list[float] = field(default_factory=list)
    peak: int | None = None
    resident: int | None = None


def order_of_round(names: list[str], number: int) -> list[str]:
    """All names, starting from another in each round."""
    start = number % len(names)
    return names[start:] + names[:start]


def paired_ratio(first: list[float], other: list[float]) -> float:
    """How many times as long the other takes: median over the rounds."""
    return statistics.median(b / a for a, b in zip(first, other, strict=True))


def compare(
    makers: dict[str, Callable[[], Step]], condition: Condition, title: str
) -> tuple[dict[str, Figures], list[str]]:
    """Measure contestants one after the other, round by round.

    A contestant that runs out of memory leaves the comparison; the others go on.

    Args:
        makers (dict[str, Callable]): for each contestant a function that makes its
            :class:`Step`; picklable if the resident set is wanted.
        condition (Condition): device, number of runs.
        title (str): stands before the progress bar.

    Returns:
        tuple[dict[str, Figures], list[str]]: figures of each contestant, empty for
        those that could not run, and a sentence for each of these.
    """
    if not makers:
        return {}, []
    figures = {name: Figures() for name in makers}
    steps: dict[str, Step] = {}
    sentences = []

    def attempt(name: str, action: Callable[[], object]) -> object:
        try:
            return action()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except clause, which keeps the tensors of its frames alive.
        steps.pop(name, None)
        figures[name] = Figures()
        sentences.append(f'{title}: {name} runs out of memory.')
        free_memory()
        return None

    timer = Timer(condition.device)
    total = len(makers) * (condition.runs + 2 + condition.resident)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        for name, make in makers.items():
            steps[name] = attempt(name, make)
            for _ in range(WARM_UP):
                if steps.get(name):
                    attempt(name, lambda step=steps[name]: timer.time(step))
            progress.advance(task)
        steps = {name: step for name, step in steps.items() if step}
        for number in range(condition.runs):
            for name in order_of_round(list(makers), number):
                if name in steps:
                    ms = attempt(name, lambda step=steps[name]: timer.time(step))
                    if ms is not None:
                        figures[name].times.append(ms)
                progress.advance(task)
        for name in makers:
            if name in steps:
                peak = attempt(
                    name, lambda step=steps[name]: peak_bytes(step, condition.device)
                )
                figures[name].peak = peak
                if condition.resident and name in steps:
                    figures[name].resident = resident_in_child(makers[name])
                    progress.advance(task)
            progress.advance(task)
    return figures, sentences


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory is used up, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        'allocate memory' in text or 'not enough memory' in text
    )


def free_memory() -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Timer:
    """Times steps in milliseconds.

    On a GPU, a buffer larger than its cache is filled before each step, so that no
    contestant finds its inputs there, and the time is that between two events: the
    step's kernels, and waiting for their launch where Python is slower than they.

    Args:
        device (str): 'cpu' or 'cuda'.
    """

    def __init__(self, device: str) -> None:
        self.buffer = None
        if device == 'cuda':
            self.buffer = torch.empty(256 * MIB, dtype=torch.uint8, device=device)

    def time(self, step: Step) -> float:
        step.reset()
        if self.buffer is None:
            start = time.perf_counter()
            output = step()
            milliseconds = (time.perf_counter() - start) * 1e3
        else:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            self.buffer.zero_()
            begin.record()
            output = step()
            end.record()
            torch.cuda.synchronize()
            milliseconds = begin.elapsed_time(end)
        del output
        step.reset()
        return milliseconds


def peak_bytes(step: Step, device: str) -> int:
    """Most bytes that tensors of a step hold at one time.

    Counted is what PyTorch's allocator gives out above what was there before:
    activations, outputs and, in training, gradients of the parameters; not weights
    and inputs. On the CPU, scratch space that oneDNN takes from the system for
    itself is not seen; :func:`resident_growth` sees it.
    """
    step.reset()
    if device == 'cuda':
        free_memory()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = step()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with torch.autograd.profiler.profile(profile_memory=True) as profiler:
            output = step()
        changes = [
            event
            for event in profiler.kineto_results.events()
            if event.name() == '[memory]'
        ]
        # torch before 2.4 counts microseconds.
        start = (
            'start_ns' if changes and hasattr(changes[0], 'start_ns') else 'start_us'
        )
        changes.sort(key=lambda change: getattr(change, start)())
        held = peak = 0
        for change in changes:
            held += change.nbytes()
            peak = max(peak, held)
    del output
    step.reset()
    return peak


def resident_in_child(make: Callable[[], Step]) -> int | None:
    """:func:`resident_growth` in a fresh process; None if the system ended it."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            threads = torch.get_num_threads()
            return pool.submit(resident_growth, make, threads).result()
        except BrokenProcessPool:
            return None


def resident_growth(make: Callable[[], Step], threads: int) -> int:
    """How far a step on the CPU raises the peak resident set of this process.

    Linux only. Unlike :func:`peak_bytes` this sees everything, but also pages that
    the allocator keeps.

    Args:
        make (Callable): makes the step.
        threads (int): of PyTorch.

    Returns:
        int: bytes above the resident set before the step.
    """
    torch.set_num_threads(threads)
    step = make()
    for _ in range(WARM_UP):
        step()
        step.reset()
    gc.collect()
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
    before = _status('VmRSS')
    output = step()
    growth = _status('VmHWM') - before
    del output
    return growth


def _status(key: str) -> int:
    return _kibibytes('/proc/self/status', key) * 1024


def _kibibytes(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1])
    raise KeyError(key)


def available_bytes() -> int | None:
    """Memory of the machine that is free for use; None if it does not say."""
    if not Path('/proc/meminfo').is_file():
        return None
    free = _kibibytes('/proc/meminfo', 'MemAvailable') * 1024
    group = Path('/sys/fs/cgroup')  # a container may get less
    try:
        limit = int((group / 'memory.max').read_text())
        return min(free, limit - int((group / 'memory.current').read_text()))
    except (OSError, ValueError):  # no such file, or 'max'
        return free


def device_name(device: str) -> str:
    """Name of the GPU or CPU."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    if Path('/proc/cpuinfo').is_file():
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def copy_bandwidth(device: str, size: int = 256 * MIB) -> float:
    """Bytes per second, read and written, of a large copy: median of five."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    step = Step(lambda: target.copy_(source), Condition(device=device), lambda: ())
    timer = Timer(device)
    times = [timer.time(step) for _ in range(WARM_UP + 5)][WARM_UP:]
    return 2 * size / statistics.median(times) * 1e3
