"""Unpickle the types that checkpoints need, and no others.

A checkpoint is a pickle, and a pickle may call any function it can name. This
module therefore reads with ``torch.load(weights_only=True)`` and names the few
further types that MMEngine, MMCV 1.x and DeiT style files hold beside tensors:
MMEngine's training history, numpy arrays, numbers and strings,
``argparse.Namespace``, paths and plain Python containers.

Nothing on the list can act on the machine. Where the type that a file asks for
could, a stand-in answers to its name, keeps the state as data, and gives way to
the real object once the file is read: numpy's ``ndarray`` called with a file's
bytes as an array of objects would follow forged pointers, ``dtype`` takes its
flags from the file, ``HistoryBuffer`` hands its arguments to numpy, and
``getattr`` reaches everything.

torch 2.1 to 2.3 have no list of allowed types, and their ``weights_only``
refuses the files that MMEngine writes. There ``torch.load`` is handed an
unpickler that finds the same names and torch's own, and nothing else.
"""

import _compat_pickle
import argparse
import collections
import functools
import pathlib
import pickle
import re
import tarfile
import threading
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import numpy as np
import torch

# The list of allowed types is one per process: two loads must not undo each other.
_lock = threading.RLock()


def unpickle(file: BinaryIO, map_location: Any) -> Any:
    """What a file of ``torch.save`` holds.

    Args:
        file: An open binary file that can seek.
        map_location: As in ``torch.load``.

    Raises:
        pickle.UnpicklingError: It needs a type that is not on the list, which the
            message names after ``GLOBAL``, or it is damaged.
    """
    return _finish(_restricted_load(file, map_location), {})


def _restricted_load(file: BinaryIO, map_location: Any) -> Any:
    # torch hands these two formats to other readers, in some versions even with
    # weights_only.
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(n.endswith('/constants.pkl') for n in archive.namelist()):
                _refuse('torch.jit.ScriptModule')
    else:
        file.seek(0)
        if tarfile.is_tarfile(file):
            _refuse('tarfile.TarFile')
    file.seek(0)
    if hasattr(torch.serialization, 'add_safe_globals'):  # torch >= 2.4
        with _lock, _allowed_in_torch():
            return torch.load(file, map_location=map_location, weights_only=True)
    return torch.load(
        file,
        map_location=map_location,
        weights_only=False,
        pickle_module=_restricted_pickle(),
    )


@contextmanager
def _allowed_in_torch() -> Iterator[None]:
    """Add our types to those that the user allows, then restore the list.

    ``torch.serialization.safe_globals`` would not do: at its end it also takes
    away what the user had allowed before. And where a name is on both lists,
    ours has to answer, as the stand-ins know only each other.
    """
    before = list(torch.serialization.get_safe_globals())
    ours = _allowed()
    theirs = [entry for entry in before if _full_name(entry) not in ours]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*theirs, *ours.values()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _full_name(entry: Any) -> str:
    # newer torch also takes pairs (object, name)
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


@functools.lru_cache(maxsize=1)
def _restricted_pickle() -> types.ModuleType:
    """What ``torch.load`` needs of a pickle module, limited to the list."""
    # torch 2.1 to 2.3 keep there what their own weights_only lets through.
    from torch._weights_only_unpickler import _get_allowed_globals

    found = {**_get_allowed_globals(), **_allowed()}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # Protocol 2 writes the module names of Python 2.
            module, name = _compat_pickle.NAME_MAPPING.get(
                (module, name),
                (_compat_pickle.IMPORT_MAPPING.get(module, module), name),
            )
            full_name = f'{module}.{name}'
            if full_name not in found:
                _refuse(full_name)
            return found[full_name]

    restricted = types.ModuleType('restricted_pickle')
    vars(restricted).update(
        Unpickler=Unpickler,
        load=lambda file, **kwargs: Unpickler(file, **kwargs).load(),
    )
    return restricted


def _refuse(full_name: str) -> None:
    # The wording of torch, from which the name is read.
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {full_name}')


class _StandIn:
    """Keeps the state of an object that a file describes, as plain data."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def real(self) -> Any:
        raise NotImplementedError


class _Dtype(_StandIn):
    """``numpy.dtype`` of numbers, bools and strings."""

    def __init__(self, code: str = '', align: bool = False, copy: bool = False):
        if not (isinstance(code, str) and re.fullmatch(r'[biufcSU]\d+', code)):
            _refuse(f'numpy.dtype({code!r})')
        self.code = code

    def real(self) -> np.dtype:
        _, byte_order, *structure = self.state[:5]
        if structure != [None, None, None]:
            _refuse('numpy.void')
        return np.dtype(self.code).newbyteorder(byte_order)


class _Array(_StandIn):
    """``numpy.ndarray``."""

    def real(self) -> np.ndarray:
        _, shape, dtype, is_fortran, data = self.state
        return _numpy_from(shape, dtype, data, 'F' if is_fortran else 'C').copy('K')


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return _numpy_from((), dtype, data)[()]


def _numpy_from(
    shape: tuple[int, ...], dtype: _Dtype, data: bytes, order: Literal['C', 'F'] = 'C'
) -> np.ndarray:
    if type(dtype) is not _Dtype or type(data) is not bytes:
        _refuse('numpy.ndarray')
    return np.ndarray(shape, dtype.real(), data, order=order)


class _Namespace(_StandIn):
    """``argparse.Namespace``, which DeiT style files hold."""

    __module__ = 'argparse'

    def real(self) -> argparse.Namespace:
        namespace = argparse.Namespace()
        vars(namespace).update(self.state or {})
        return namespace


class _HistoryBuffer(_StandIn):
    """MMEngine's history of one logged value.

    It also saves its statistics, four functions of its class, which it has again
    as soon as it is made: those of the file are not needed.
    """

    __module__ = 'mmengine.logging.history_buffer'

    def real(self) -> Any:
        from mmengine.logging import HistoryBuffer

        values, counts = self.state['_log_history'], self.state['_count_history']
        if not (type(values) is type(counts) is _Array):
            _refuse('numpy.ndarray')
        return HistoryBuffer(
            values.real(), counts.real(), max_length=int(self.state['max_length'])
        )


# torch finds a class by the names it carries.
for _class, _name in ((_Namespace, 'Namespace'), (_HistoryBuffer, 'HistoryBuffer')):
    _class.__name__ = _class.__qualname__ = _name


def _getattr(owner: type, name: str) -> None:
    """Protocol 2 writes a function of a class as ``getattr(class, 'name')``."""
    if owner is not _HistoryBuffer:
        _refuse('builtins.getattr')


def _latin1(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as ``_codecs.encode(text, 'latin1')``."""
    if encoding != 'latin1':
        _refuse('_codecs.encode')
    return text.encode('latin1')


@functools.lru_cache(maxsize=1)
def _allowed() -> dict[str, Any]:
    """The list: full name in a file -> what answers to it."""
    renamed = {
        'builtins.getattr': _getattr,
        '_codecs.encode': _latin1,  # torch >= 2.5 has the original
        'numpy.ndarray': lambda *_: _Array(),
        'numpy.dtype': _Dtype,
        # torch fills nothing but exact dicts; the later default is not state
        'collections.defaultdict': lambda *_: {},
        # the original may import modules when it is read
        'mmengine.config.config.ConfigDict': lambda items=(): dict(items),
    }
    # numpy 2 moved its core; files of either version are read with either
    for core in ('numpy.core', 'numpy._core'):
        renamed[f'{core}.multiarray._reconstruct'] = lambda *_: _Array()
        renamed[f'{core}.multiarray.scalar'] = _scalar
    # pure paths never touch the disk, and those of the other system can exist
    for module in ('pathlib', 'pathlib._local'):  # the latter: Python 3.13
        for system in ('Posix', 'Windows'):
            pure = getattr(pathlib, f'Pure{system}Path')
            renamed[f'{module}.{system}Path'] = pure
            renamed[f'{module}.Pure{system}Path'] = pure
    allowed = {name: _answer(name, to) for name, to in renamed.items()}
    for own in (
        *(_Array, _Dtype, _HistoryBuffer, _Namespace),
        *(collections.OrderedDict, collections.Counter),
        *(set, frozenset, slice, bytes, list, dict, int, float),
    ):
        allowed[_full_name(own)] = own
    return allowed


def _answer(full_name: str, target: Any) -> Any:
    """A function that carries ``full_name``, by which every torch finds it.

    (torch 2.4 and 2.5 can not be given a name beside an object.)
    """

    def stand_in(*args: Any) -> Any:
        return target(*args)

    stand_in.__module__, _, name = full_name.rpartition('.')
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in


def _finish(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """Put the real objects where their stand-ins are; containers stay the same.

    Args:
        value: What was read.
        done: id of each object met before -> the object, kept so that its id
            stays its own, and what became of it. So what a file shares stays
            shared, and what holds itself comes to an end.
    """
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, _StandIn):
        real = value.real()
        done[id(value)] = value, real
        if isinstance(real, argparse.Namespace):
            _finish(vars(real), done)
        return real
    if isinstance(value, dict):
        done[id(value)] = value, value
        for key, item in value.items():
            value[key] = _finish(item, done)
    elif isinstance(value, list):
        done[id(value)] = value, value
        value[:] = [_finish(item, done) for item in value]
    elif type(value) is tuple:
        return tuple(_finish(item, done) for item in value)
    return value
