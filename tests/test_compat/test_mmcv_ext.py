"""How the stand-in for `mmcv._ext` gets to its place, and when it does not."""

import importlib
import importlib.util
import logging
import pkgutil
import sys

import pytest
import torch

from mmravlt.compat import mmcv_ext
from mmravlt.compat.mmcv_ext.operators.nms import nms
from tests.test_compat.operators import STAND_IN, needs_stand_in

HOOK = sys.modules['mmravlt.compat.mmcv_ext.install']
ext_is_missing = pytest.mark.skipif(
    not STAND_IN or mmcv_ext.status().broken, reason='this mmcv has an extension'
)


@pytest.mark.parametrize(
    'package', ('mmcv.ops', 'mmdet.models', 'mmseg.models', 'mmpretrain.models')
)
def test_openmmlab_packages_import(package):
    if importlib.util.find_spec(package.split('.')[0]) is None:
        pytest.skip(f'{package} is not installed')
    importlib.import_module(package)


@needs_stand_in
def test_an_unsupported_op_imports_and_raises_when_called():
    from mmcv.ops import corner_pool  # noqa: F401  asks for its ops at import

    ext = importlib.import_module('mmcv._ext')
    op = ext.top_pool_forward
    with pytest.raises(NotImplementedError, match="'top_pool_forward'.*doctor"):
        op(torch.zeros(1))
    assert hasattr(ext, 'any_name_a_later_mmcv_may_ask_for')


@needs_stand_in
@pytest.mark.parametrize('name', ('__path__', '__file__', '__wrapped__', '_private'))
def test_names_that_are_no_ops_are_missing(name):
    assert not hasattr(importlib.import_module('mmcv._ext'), name)


@needs_stand_in
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_import_tools_find_the_stand_in():
    from mmcv.utils import collect_env

    spec = importlib.util.find_spec('mmcv._ext')
    assert spec.name == 'mmcv._ext'
    assert spec is sys.modules['mmcv._ext'].__spec__
    if hasattr(pkgutil, 'find_loader'):  # gone in Python 3.14
        assert pkgutil.find_loader('mmcv._ext') is spec.loader
    if not torch.cuda.is_available():  # else it starts nvcc
        assert collect_env()['MMCV Compiler'] == 'n/a'


@needs_stand_in
def test_installing_twice_changes_nothing(capsys):
    module, finders = sys.modules['mmcv._ext'], list(sys.meta_path)
    assert mmcv_ext.install() is True
    assert sys.modules['mmcv._ext'] is module
    assert sys.meta_path == finders
    assert capsys.readouterr().out == ''
    assert mmcv_ext.status().stand_ins == tuple(mmcv_ext.STAND_INS)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A copy of the module before `install`, and a folder to put an `_ext` in.

    The folder comes first where Python looks for parts of mmcv; the state of
    this process is restored afterwards.
    """
    import mmcv

    for name in ('LOCAL_RANK', 'RANK'):
        monkeypatch.delenv(name, raising=False)
    ours = 'mmravlt.compat.mmcv_ext.'
    own = [f for f in sys.meta_path if not type(f).__module__.startswith(ours)]
    monkeypatch.setattr(sys, 'meta_path', own)
    monkeypatch.setattr(mmcv, '__path__', [str(tmp_path), *mmcv.__path__])
    monkeypatch.setattr(mmcv, '_ext', None, raising=False)
    # set and then removed, so that the stand-in of this process comes back
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(
        'mmravlt.compat.mmcv_ext.fresh', HOOK.__file__
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module, tmp_path


def test_a_real_extension_is_left_alone(fresh, capsys):
    module, folder = fresh
    (folder / '_ext.py').write_text('nms = "compiled"')
    finders = list(sys.meta_path)
    assert module.install() is False
    assert importlib.import_module('mmcv._ext').nms == 'compiled'
    assert sys.meta_path == finders
    assert module.status() == module.Status(real=True)
    assert capsys.readouterr().out == ''


def test_an_extension_that_does_not_load_is_replaced_and_the_reason_kept(fresh, caplog):
    module, folder = fresh
    reason = 'undefined symbol: _ZN3c10ls'
    (folder / '_ext.py').write_text(f'raise ImportError({reason!r})')
    assert not module.status().real  # asking installs nothing
    assert not any(isinstance(f, module._Finder) for f in sys.meta_path)
    with caplog.at_level(logging.WARNING, 'mmravlt'):
        assert module.install() is True
        assert module.install() is True
    assert importlib.import_module('mmcv._ext').nms is nms
    status = module.status()
    assert status.broken
    assert not status.real
    assert reason in status.reason
    (record,) = caplog.records
    assert record.name == 'mmravlt'
    assert reason in record.getMessage()


def test_a_shared_library_that_is_none_is_replaced(fresh):
    module, folder = fresh
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (folder / f'_ext{suffix}').write_bytes(b'not a library')
    assert importlib.util.find_spec('mmcv._ext') is not None
    assert module.install() is True
    assert module.status().broken


@ext_is_missing
@pytest.mark.parametrize('rank, lines', ((None, 1), ('0', 1), ('1', 0)))
def test_only_the_first_rank_says_that_ops_are_missing(rank, lines, fresh, monkeypatch):
    import mmengine.logging

    said = []
    monkeypatch.setattr(
        mmengine.logging, 'print_log', lambda message, **_: said.append(message)
    )
    if rank is not None:
        monkeypatch.setenv('LOCAL_RANK', rank)
    module, _ = fresh
    assert module.install() is True
    assert len(said) == lines
    assert all('mmcv._ext is missing' in line for line in said)


@ext_is_missing
def test_dataloader_workers_stay_silent(fresh, monkeypatch):
    import mmengine.logging

    monkeypatch.setattr('multiprocessing.parent_process', lambda: object())
    monkeypatch.setattr(mmengine.logging, 'print_log', pytest.fail)
    assert fresh[0].install() is True


def test_without_mmcv_nothing_is_done(fresh, monkeypatch):
    module, _ = fresh
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    finders = list(sys.meta_path)
    assert module.install() is False
    assert sys.meta_path == finders
    assert module.status() == module.Status(False, 'mmcv is not installed')
