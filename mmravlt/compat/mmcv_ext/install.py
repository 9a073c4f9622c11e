"""Where `mmcv._ext` is looked for, and how the stand-in comes there."""

import importlib
import importlib.util
import logging
import multiprocessing
import os
import sys
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .operators import STAND_INS
from .operators.common import FIX

EXT = 'mmcv._ext'


@dataclass(frozen=True)
class Status:
    """What became of `mmcv._ext`.

    Attributes:
        real (bool): the compiled extension is loaded.
        reason (str): why it is not; empty if it is.
        broken (bool): it is there, but does not load.
        stand_ins (tuple[str]): operators that the stand-in computes; empty
            where none is used: with real ones, or without mmcv.
    """

    real: bool
    reason: str = ''
    broken: bool = False
    stand_ins: tuple = ()


def _unsupported(name):
    def op(*args, **kwargs):
        raise NotImplementedError(
            f"mmcv's compiled op '{name}' was called, but the mmcv of this "
            f'environment has no compiled ops that load: {FIX}.'
        )

    op.__name__ = op.__qualname__ = name
    return op


class _StandIn(ModuleType):
    """The module: holds `STAND_INS` and answers any other public name."""

    def __getattr__(self, name):
        # Python and its tools probe modules for names with an underscore
        # (`__path__`, `_ipython_display_`), which no op has
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        return _unsupported(name)


class _Finder(MetaPathFinder, Loader):
    """Finds `mmcv._ext` and loads the stand-in for it.

    Stands before Python's own finders: they would find an extension that does
    not load. `install` has made sure that there is no other.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != EXT:
            return None
        return ModuleSpec(fullname, self, origin=__name__)

    def create_module(self, spec):
        return _StandIn(spec.name, 'Stand-in of mmravlt for compiled mmcv ops.')

    def exec_module(self, module):
        vars(module).update(STAND_INS)


_status = None


def _probe():
    """Really imports `mmcv._ext`; that a finder finds it says little."""
    if importlib.util.find_spec('mmcv') is None:
        return Status(False, 'mmcv is not installed')
    try:
        importlib.import_module('mmcv')
    except Exception as error:  # its own problem; whoever imports it sees it
        return Status(False, f'mmcv does not import: {error}')
    names = tuple(STAND_INS)
    try:
        importlib.import_module(EXT)
    except Exception as error:  # a loader may raise anything, e.g. RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name == EXT:
            return Status(False, f'{EXT} is missing', stand_ins=names)
        reason = f'{EXT} does not load: {" ".join(str(error).split())}'
        return Status(False, reason, broken=True, stand_ins=names)
    return Status(True)


def status():
    """What became of `mmcv._ext`; installs nothing.

    Returns:
        Status: as found before a stand-in was installed.
    """
    return _status or _probe()


def install():
    """Puts the stand-in in the place of a missing or broken `mmcv._ext`.

    Call it before mmdet or `mmcv.ops` are first imported. Does nothing when the
    real extension loads, when mmcv is not installed, or the second time. Says
    what it did in one line, in the main process only.

    Returns:
        bool: True if the stand-in is in use.
    """
    global _status
    if _status is None:
        found = _probe()
        if found.stand_ins:
            sys.meta_path.insert(0, _Finder())
            importlib.import_module(EXT)
        _status = found
        if found.stand_ins:
            _announce(found)
    return bool(_status.stand_ins)


def _announce(found):
    """One line, not repeated by other ranks or by dataloader workers."""
    is_worker = multiprocessing.parent_process() is not None
    if is_worker or os.environ.get('LOCAL_RANK', '0') != '0':
        return
    text = (
        f'{found.reason}; nms, roi_align and focal loss run through torchvision '
        'and PyTorch instead, other ops of mmcv raise when called'
    )
    if found.broken:
        # Somebody meant to have compiled ops: to be seen in every setting
        logging.getLogger('mmravlt').warning('%s. To fix it, %s', text, FIX)
    else:
        from mmengine.logging import print_log

        print_log(text, logger='current')
