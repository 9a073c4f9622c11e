"""Which implementation of RALA runs: the one switch, and the one place that tells."""

import os

from torch import Tensor, jit, library

KERNELS = ('auto', 'triton', 'torch')

_DEVICES = ('cuda',)  # where the kernels run
_wanted = os.environ.get('MMRAVLT_RALA', 'auto')


def use_rala_kernel(name: str) -> None:
    """Choose the implementation of RALA from now on.

    The environment variable ``MMRAVLT_RALA`` chooses it from the start.

    Args:
        name (str): 'auto' takes the fused Triton kernels where they apply (an NVIDIA
            GPU of compute capability 8.0 or later, float32, float16 or bfloat16,
            heads of 32 to 128 channels) and PyTorch elsewhere; 'triton' raises an
            error where they don't apply; 'torch' never takes them. Before the kernels
            first serve a device, a type and a size of heads, they are compared with
            the equations on a small map. Where they are wrong or fail, then or later,
            'auto' warns once and takes PyTorch from then on, 'triton' raises an error.

    Raises:
        ValueError: if the name is none of these.
    """
    global _wanted
    _check(name)
    _wanted = name


def rala_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: str = 'elu+1',
    kv_augmentation: bool = True,
) -> tuple[str, str]:
    """Which implementation :func:`mmravlt.ops.rala` takes for these tensors, and why.

    The first answer for a device, a type and a size of heads checks the kernels.

    Args:
        q (Tensor): queries, shape (B, heads, N, d).
        k (Tensor): keys, same shape.
        v (Tensor): values, same shape.
        kappa (str): as for :func:`mmravlt.ops.rala`.
        kv_augmentation (bool): as for :func:`mmravlt.ops.rala`.

    Returns:
        tuple[str, str]: 'triton' or 'torch', and the reason in a few words.

    Raises:
        ValueError: if ``MMRAVLT_RALA`` names no implementation.
        RuntimeError: if 'triton' is wanted and does not apply, or is wrong here.
    """
    _check(_wanted)
    if _wanted == 'torch':
        return 'torch', 'chosen'
    reason: str | None
    if kappa != 'elu+1':
        reason = f'kappa {kappa}'
    elif not kv_augmentation:
        reason = 'no KV augmentation'
    else:
        reason = _unsupported_reason(q, k, v)
    if reason is None:
        return 'triton', 'it applies' if _wanted == 'auto' else 'chosen'
    insist(reason)
    return 'torch', reason


def insist(reason: str, cause: Exception | None = None) -> None:
    """Raise a RuntimeError with the reason against the kernels if they are wanted."""
    if _wanted == 'triton':
        raise RuntimeError(
            f'The fused Triton kernels of RALA, which were asked for, do not apply: '
            f'{reason}. Choose auto or torch with MMRAVLT_RALA or use_rala_kernel.'
        ) from cause


def _check(name: str) -> None:
    if name not in KERNELS:
        raise ValueError(
            f'The kernel of RALA is {name!r}; give one of '
            f'{", ".join(map(repr, KERNELS))} in MMRAVLT_RALA or use_rala_kernel.'
        )


def _unsupported_reason(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    # Files must run where there are no such kernels.
    if jit.is_tracing():
        return 'traced by TorchScript'
    if q.device.type not in _DEVICES:
        return f'device {q.device.type}'
    if not hasattr(library, 'custom_op'):
        return 'torch older than 2.4'
    try:
        from .kernel_check import find_fault, is_exporting
        from .rala_triton import unsupported_reason
    except Exception as error:  # a Triton of another time than this torch's, too
        return f'triton cannot be imported ({error})'
    if is_exporting():
        return 'exported'
    return unsupported_reason(q, k, v) or find_fault(q)
