"""Trust in the Triton kernels of RALA: they are tried first, and left if they fail.

A compiler may refuse the kernels on a new card, or make wrong ones of them. So they
are compared with the equations on a small map before they first serve a device, a
type and a size of heads in a process. Whatever they do wrong then or raise later,
PyTorch computes RALA instead from that moment on, after one warning, or one error if
the kernels were asked for by name.

The map lies in memory as the backbone's do; for other strides the kernels are compiled
when they come, and watched for errors only.

What cannot be fixed: a compiler that ends the process, and a kernel that reads or
writes memory that is not its own after it was found right, which CUDA reports at a
later operation, and after which nothing works in that process.
"""

import functools
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from . import kernels
from .rope2d import rope2d_table
from .runtime import is_compiling

Key = tuple[torch.device, torch.dtype, int]  # of tensors: device, type, head size

# Largest errors for which the kernels still count as right, of the largest value: of
# usual queries and keys, and of large ones, whose softmax over tokens is peaked. In
# Triton's interpreter, right kernels in half precision have up to 7e-3 of the usual;
# of the large, 2e-2 with products of three parts, but 0.2 and more where operands are
# cut to TF32, which ruins the gradient of the keys.
_ALLOWED = {
    torch.float32: (1e-4, 1e-2),
    torch.float16: (2e-3, 0.1),
    torch.bfloat16: (2e-2, 0.1),
}
_SCALES = 1, 100  # standard deviations of queries and keys
_SIZE = 23, 19  # seven blocks of 64 tokens, the last with 53

# What is known: None if the kernels were found right, else what is wrong with them.
_faults: dict[Key, str | None] = {}
# The wrong ones again, for torch.compile, which compiles anew when this changes.
_failed: tuple[tuple[torch.device, torch.dtype, int, str], ...] = ()
_lock = threading.RLock()  # a model on several GPUs may run in as many threads
_launches: dict[str, Callable] = {}


def is_exporting() -> bool:
    """Whether ``torch.export`` records, and not ``torch.compile``."""
    # torch's own is_exporting says yes to torch.compile, too (seen in 2.11).
    if hasattr(torch.compiler, '_is_exporting_flag'):
        return torch.compiler._is_exporting_flag
    if torch.compiler.is_dynamo_compiling():
        return _is_exporting_through_dynamo()
    return getattr(torch.compiler, '_is_compiling_flag', False)  # only for exports


@torch.compiler.assume_constant_result
def _is_exporting_through_dynamo() -> bool:
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().export)


def find_fault(q: Tensor) -> str | None:
    """Check the kernels for tensors like these unless that is done.

    Args:
        q (Tensor): queries, shape (B, heads, N, d), which the kernels take.

    Returns:
        str | None: why the kernels are not to be trusted with them. To
        ``torch.compile`` and for tensors without values, only what is known
        already: the kernels are checked when they run.

    Raises:
        RuntimeError: if they failed now and 'triton' is wanted.
    """
    if is_compiling():
        for device, dtype, head_dim, fault in _failed:
            if device == q.device and dtype == q.dtype and head_dim == q.shape[-1]:
                return fault
        return None
    return _fault(q) if type(q) is Tensor else None


def guarded(name: str) -> Callable[[Callable], Callable]:
    """Decorate the function that launches a pass, so that PyTorch can replace it.

    Args:
        name (str): 'forward' or 'backward'. The first argument of the function is
            like the queries, shape (B, heads, N, d).
    """

    def decorate(launch: Callable) -> Callable:
        _launches[name] = launch

        @functools.wraps(launch)
        def run(*tensors: Tensor):
            fault = _fault(tensors[0])
            if fault is None:
                try:
                    return _launches[name](*tensors)
                except Exception as error:
                    fault = _describe(error, _key(tensors[0]))
                    _give_up(_key(tensors[0]), fault, error)
            kernels.insist(fault)
            return _IN_PYTORCH[name](*tensors)

        return run

    return decorate


def kernel_errors(
    device: torch.device, dtype: torch.dtype, head_dim: int, heads: int = 1
) -> list[list[float]]:
    """Compare the kernels with the equations in float64 on a small map.

    Neither autocast nor a mode, a tracer or a random generator of the caller's
    notices, and none of them changes the result.

    Args:
        device (torch.device): where the kernels run.
        dtype (torch.dtype): of the tensors.
        head_dim (int): channels d of one head.
        heads (int): heads of each image.

    Returns:
        list[list[float]]: for usual and for large queries and keys, the largest
        errors of y, dq, dk and dv, of their largest values.
    """
    # In a thread of its own all that is local to the caller's is as at the start.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_errors, device, dtype, head_dim, heads).result()


def _key(x: Tensor) -> Key:
    return x.device, x.dtype, x.shape[-1]


def _fault(x: Tensor) -> str | None:
    key = _key(x)
    if key not in _faults:
        with _lock:
            if key not in _faults:
                _check(key, x.shape[1])
    return _faults[key]


def _check(key: Key, heads: int) -> None:
    fault = cause = None
    if _is_capturing(key[0]):
        fault = (
            f'they cannot be checked {_where(key)} while a CUDA graph is captured; '
            'call the model once before'
        )
    else:
        try:
            fault = _disagreement(key, kernel_errors(*key, heads))
        except Exception as error:
            fault, cause = _describe(error, key), error
    if fault is None:
        _faults[key] = None
    else:
        _give_up(key, fault, cause)


def _errors(
    device: torch.device, dtype: torch.dtype, head_dim: int, heads: int
) -> list[list[float]]:
    from .rala import rala_reference

    # On a CPU, so that neither cuBLAS nor the GPU's autograd thread is needed.
    cpu = torch.device('cpu')
    shape = len(_SCALES), _SIZE[0] * _SIZE[1], 4, heads, head_dim
    generator = torch.Generator(cpu).manual_seed(0)
    maps = torch.randn(shape, generator=generator, dtype=torch.float32, device=cpu)
    for image, scale in zip(maps, _SCALES, strict=True):
        image[:, :2] *= scale
    maps = maps.to(dtype)
    rope = rope2d_table(*_SIZE, head_dim, cpu)
    q, k, v, dy = (x.transpose(1, 2).double() for x in maps.unbind(2))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    y = rala_reference(q, k, v, rope)
    expected = y.detach(), *torch.autograd.grad(y, inputs, dy)

    # As many images as make a few programs share a head, and loop over its tokens.
    copies = 1
    if device.type == 'cuda':
        programs = torch.cuda.get_device_properties(device).multi_processor_count
        copies = max(1, programs // (3 * len(_SCALES) * heads))
    maps = maps.to(device).repeat(copies, 1, 1, 1, 1)
    q, k, v, dy = (x.transpose(1, 2) for x in maps.unbind(2))
    rope = rope[0].to(device), rope[1].to(device)
    with torch.no_grad():
        y, *summaries = _launches['forward'](q, k, v, *rope)
        grads = _launches['backward'](dy, q, k, v, *rope, *summaries)
        errors = []
        for x, true in zip((y, *grads), expected, strict=True):
            true = true.to(device)
            error = (x.unflatten(0, (copies, len(_SCALES))) - true).abs()
            errors.append(error.amax((0, 2, 3, 4)) / true.abs().amax((1, 2, 3)))
        return torch.stack(errors, 1).tolist()


def _disagreement(key: Key, errors: list[list[float]]) -> str | None:
    for scale, found, allowed in zip(_SCALES, errors, _ALLOWED[key[1]], strict=True):
        if not all(x <= allowed for x in found):
            figures = ', '.join(f'{x:.1e}' for x in found)
            return (
                f'they are wrong {_where(key)}: errors of y, dq, dk, dv are {figures} '
                f'of the largest value instead of at most {allowed:.0e}, with q and '
                f'k of standard deviation {scale}'
            )
    return None


def _describe(error: Exception, key: Key) -> str:
    """What to say of an error, if it is one of the kernels; else it goes on."""
    text = ' '.join(str(error).split())
    out_of_memory = torch.cuda.OutOfMemoryError, MemoryError
    if isinstance(error, out_of_memory) or 'out of memory' in text.lower():
        raise error
    if len(text) > 300:  # compilers say the essential first or last
        text = f'{text[:140]} … {text[-140:]}'
    device = key[0]
    if device.type == 'cuda' and not _is_capturing(device):
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            raise RuntimeError(
                f'{device} no longer works in this process ({text}); if that happens '
                'again, start with MMRAVLT_RALA=torch, which leaves the fused Triton '
                'kernels of RALA out.'
            ) from error
    return f'they fail {_where(key)}: {type(error).__name__}: {text}'


def _where(key: Key) -> str:
    device, dtype, head_dim = key
    return f'on {device} in {str(dtype)[6:]} with heads of {head_dim} channels'


def _is_capturing(device: torch.device) -> bool:
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()


def _give_up(key: Key, fault: str, cause: Exception | None) -> None:
    """Leave the kernels, with one warning, or an error if they were asked for."""
    global _failed
    with _lock:
        is_new = _faults.get(key) is None
        if is_new:
            _faults[key] = fault
            _failed = (*_failed, (*key, fault))
    kernels.insist(fault, cause)
    if is_new:
        warnings.warn(
            f'The fused Triton kernels of RALA are not used from now on: {fault}. '
            'PyTorch computes RALA instead: results are right, but slower; '
            'MMRAVLT_RALA=torch chooses that from the start.',
            RuntimeWarning,
            stacklevel=2,
        )


class _Kept:
    """What a pass in PyTorch keeps for its gradient, outside autograd."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


def _forward_in_pytorch(q: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    from .rala import _Rala
    from .rala_triton import _empty_summaries

    # The gradient, which will be PyTorch's, too, does not read the summaries.
    return _Rala.forward(_Kept(), q, *tensors), *_empty_summaries(q)


def _backward_in_pytorch(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, *_
) -> tuple[Tensor | None, ...]:
    from .rala import _Rala

    kept = _Kept()
    with torch.no_grad():
        _Rala.forward(kept, q, k, v, rows, columns)
        return _Rala.backward(kept, dy)[:3]


_IN_PYTORCH: dict[str, Callable] = {
    'forward': _forward_in_pytorch,
    'backward': _backward_in_pytorch,
}
