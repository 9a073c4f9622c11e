"""Imports flow one way, so that each part can be read and used alone."""

import ast
import sys
from pathlib import Path

import pytest

import mmravlt

from .processes import run_python

PACKAGE = Path(mmravlt.__file__).parent
LIBRARIES = {'mmdet', 'mmseg', 'mmpretrain'}
MODELS = {'torch', 'mmravlt.ops', 'mmravlt.registry'}
ALLOWED = {
    'ops': {'torch', 'triton', 'mmravlt.ops'},
    'checkpoint': {'torch', 'numpy', 'safetensors'},
    'models': {*MODELS, 'mmravlt.foundation', 'mmravlt.checkpoint'},
    'models/layers': MODELS,
    'models/backbones': {
        *MODELS,
        'mmravlt.models.layers',
        'mmravlt.models.base_module',
    },
    'models/inference': {*MODELS, 'mmravlt.models'},
    'models/necks': {*MODELS, 'mmravlt.models.layers', 'mmravlt.models.base_module'},
}
# Where MMEngine is met, if it is there. (A checkpoint may hold one of its types.)
BRIDGES = {'models/base_module.py', 'registry.py', 'checkpoint/unpickling.py'}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize('folder', ALLOWED)
def test_parts_import_only_what_they_may_know(folder):
    files = sorted((PACKAGE / folder).glob('*.py'))
    assert files
    for path in files:
        for module in imported_modules(path):
            if module.split('.')[0] in sys.stdlib_module_names:
                continue
            allowed = ALLOWED[folder]
            if str(path.relative_to(PACKAGE)) in BRIDGES:
                allowed = {*allowed, 'mmengine'}
            assert any((module + '.').startswith(a + '.') for a in allowed), (
                f'{path} imports {module}'
            )


@pytest.mark.parametrize('folder', ['ops', 'models'])
def test_neither_ops_nor_models_import_a_library_of_a_task(folder):
    for path in (PACKAGE / folder).rglob('*.py'):
        roots = {module.split('.')[0] for module in imported_modules(path)}
        assert not roots & LIBRARIES, path


def test_importing_mmravlt_imports_no_library_of_a_task():
    show = f'print(sorted(set(sys.modules) & {LIBRARIES!r}))'
    script = f'import sys, mmravlt.tasks; {show}'
    assert run_python('-c', script).stdout.splitlines()[-1] == '[]'


def test_setup_never_imports_torch():
    setup = PACKAGE.parent / 'setup.py'
    assert 'torch' not in {m.split('.')[0] for m in imported_modules(setup)}
