"""Let all of MMEngine read the checkpoints that it writes, and run nothing of them.

Upstream: https://github.com/open-mmlab/mmengine/issues/1655. MMEngine 0.10.7 calls
`torch.load` with its defaults, with which torch 2.6 and later refuse the
`HistoryBuffer` in each of MMEngine's files, and earlier ones run whatever a file
carries. onedl-mmengine 0.10.12 (`_safe_torch_load`) unpickles everything once its list
of types does not suffice, and so would https://github.com/open-mmlab/mmengine/pull/1650.

What MMEngine reads by itself, such as `s3://` and `pavi://`, is read by
:func:`mmravlt.checkpoint.load_file` after `install()`.

May go when MMEngine reads its own files with `weights_only=True` and refuses what is
not on its list: then `install()` does nothing.
"""

import io
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import torch

from mmravlt.checkpoint import load_file


def install() -> None:
    """Replace `torch.load` in MMEngine's module of checkpoints, if it needs that.

    May be called any number of times.
    """
    from mmengine.runner import checkpoint

    if _reads_safely(getattr(checkpoint, '_safe_torch_load', checkpoint.torch.load)):
        return
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = load
    else:
        checkpoint.torch = _Torch(torch.__name__)


def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """In the place of `torch.load`; never unpickles everything.

    Args:
        file: a path or an open binary file.
        map_location: as in `torch.load`; None means the CPU.
        weights_only: not used.

    Raises:
        CheckpointError: says what is wrong with the file.
    """
    return load_file(file, 'cpu' if map_location is None else map_location)


class _Torch(ModuleType):
    """PyTorch, but for `load`."""

    load = staticmethod(load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _Foreign:
    """A type that no checkpoint needs."""


def _reads_safely(read: Any) -> bool:
    """Whether MMEngine's files are read, and other types refused."""
    from mmengine.logging import HistoryBuffer

    with redirect_stdout(io.StringIO()):  # onedl-mmengine prints what it falls back to
        try:
            read(_saved(HistoryBuffer()))
        except Exception:  # whatever a version raises: it does not read them
            return False
        try:
            read(_saved(_Foreign()))
        except Exception:
            return True
    return False


def _saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file
