"""What runs the operations: a recorder or none, and automatic mixed precision.

Alike for all versions of torch and kinds of devices.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# torch 2.1 cannot tell yet whether it compiles.
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def is_recording() -> bool:
    """Whether operations are recorded, by a compiler, an exporter or TorchScript."""
    return is_compiling() or torch.jit.is_tracing()


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Type that autocast computes in on a kind of device now; None if it is off."""
    try:
        enabled = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if enabled else None
    except RuntimeError:  # some devices, such as meta, know none
        return None
    except TypeError:  # torch before 2.4
        if device_type == 'cpu':
            enabled = torch.is_autocast_cpu_enabled()
            return torch.get_autocast_cpu_dtype() if enabled else None
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def use_autocast(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager:
    """Make autocast compute in a type from :func:`autocast_dtype`; None is off."""
    try:
        return torch.autocast(device_type, dtype=dtype, enabled=dtype is not None)
    except RuntimeError:
        return nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
