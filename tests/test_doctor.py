"""`python -m mmravlt doctor` tells a healthy installation from a broken one."""

import os
from pathlib import Path

import pytest

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


def test_a_wrong_wish_for_a_kernel_is_named_with_the_fix(monkeypatch):
    monkeypatch.setenv('MMRAVLT_RALA', 'fast')
    done = doctor()
    assert done.returncode == 1
    assert "!!  RALA: The kernel of RALA is 'fast'; give one of" in done.stdout
    assert 'fix: unset MMRAVLT_RALA' in done.stdout


def test_rival_distributions_are_named_with_the_fix(tmp_path):
    distribution(tmp_path, 'mmcv', '2.2.0')
    distribution(tmp_path, 'mmcv-full', '1.7.2')
    done = doctor(tmp_path)
    assert done.returncode == 1
    assert '!!  mmcv 2.2.0 and ' in done.stdout
    assert 'mmcv-full 1.7.2' in done.stdout
    assert 'fix: pip uninstall -y mmcv ' in done.stdout


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
        ('mmseg', "raise ImportError('No module named ftfy')", '!!  mmseg (semantic'),
    ],
)
def test_a_package_that_does_not_work_is_named(name, code, said, tmp_path):
    package(tmp_path, name, code)
    done = doctor(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert 'fix: ' in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr


def test_compiled_ops_that_do_not_load_are_explained(tmp_path):
    import mmcv

    (tmp_path / 'sitecustomize.py').write_text(
        'import sys, importlib.abc, importlib.machinery\n'
        'class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name == 'mmcv._ext':\n"
        '            return importlib.machinery.ModuleSpec(name, self)\n'
        '    def create_module(self, spec):\n'
        "        raise ImportError('_ext.so: undefined symbol: _ZN3c10')\n"
        '    def exec_module(self, module):\n'
        '        pass\n'
        'sys.meta_path.insert(0, Finder())\n'
    )
    assert mmcv.__version__
    done = doctor(tmp_path)
    assert done.returncode == 1
    assert 'undefined symbol: _ZN3c10; stand-ins are used for nms' in done.stdout


def test_an_unknown_command_is_refused():
    done = run_python('-m', 'mmravlt', 'docter', check=False)
    assert done.returncode == 2
    assert "invalid choice: 'docter'" in done.stderr
