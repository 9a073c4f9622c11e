"""`python -m mmravlt doctor` tells a healthy installation from a broken one."""

import os
from pathlib import Path

import pytest

from mmravlt.__main__ import main

from .processes import run_python


def doctor(*folders: Path):
    """Run it, with ``folders`` first on the path of the interpreter."""
    path = os.pathsep.join([*map(str, folders), os.environ.get('PYTHONPATH', '')])
    words = ('-m', 'mmravlt', 'doctor')
    return run_python(*words, env={'PYTHONPATH': path}, check=False)


def package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / '__init__.py').write_text(code)


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')


def test_a_healthy_installation_is_said_to_work():
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert '!!' not in done.stdout
    for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg'):
        assert f'ok  {name}' in done.stdout
    assert 'mmpretrain (classification)' in done.stdout
    assert 'mmcv ops: ' in done.stdout
    assert 'ok  RALA: ' in done.stdout
    assert "finds type='RAVLT' and runs it" in done.stdout
    assert 'All of the above will work.' in done.stdout


# A module mmcv._ext that was built for another PyTorch.
COMPILED_OPS_THAT_DO_NOT_LOAD = """
import sys, importlib.abc, importlib.machinery
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name == 'mmcv._ext':
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError('_ext.so: undefined symbol: _ZN3c10')
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Finder())
"""


def test_faults_of_several_parts_are_each_named_with_their_fix(tmp_path, monkeypatch):
    monkeypatch.setenv('MMRAVLT_RALA', 'fast')
    distribution(tmp_path, 'mmcv', '2.2.0')
    distribution(tmp_path, 'mmcv-full', '1.7.2')
    package(tmp_path, 'mmseg', "raise ImportError('No module named ftfy')")
    (tmp_path / 'sitecustomize.py').write_text(COMPILED_OPS_THAT_DO_NOT_LOAD)
    done = doctor(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "!!  RALA: The kernel of RALA is 'fast'; give one of" in done.stdout
    assert 'fix: unset MMRAVLT_RALA' in done.stdout
    assert '!!  mmcv 2.2.0 and ' in done.stdout
    assert 'mmcv-full 1.7.2' in done.stdout
    assert 'fix: pip uninstall -y mmcv ' in done.stdout
    assert '!!  mmseg (semantic' in done.stdout
    assert 'undefined symbol: _ZN3c10; stand-ins are used for nms' in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr


@pytest.mark.parametrize(
    'name,code,said',
    [
        (
            'torch',
            "raise ImportError('libcudart.so.12: cannot open')",
            '!!  torch: libcudart',
        ),
        (
            'torchvision',
            "raise RuntimeError('operator torchvision::nms does not exist')",
            '!!  torchvision: operator torchvision::nms does not exist',
        ),
        ('mmengine', '__version__ = "0.7.0"', '!!  mmengine'),
    ],
)
def test_a_package_that_does_not_work_is_named(name, code, said, tmp_path):
    package(tmp_path, name, code)
    done = doctor(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert 'fix: ' in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr


def test_an_unknown_command_is_refused(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['mmravlt', 'docter'])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "invalid choice: 'docter'" in capsys.readouterr().err
