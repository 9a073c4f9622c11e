"""Any patch, and any feature on MMEngine, can be left out."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from mmravlt import compat, openmmlab

EACH = [
    *((compat, name) for name in compat.PATCHES),
    *((openmmlab, name) for name in openmmlab.FEATURES),
]
each = pytest.mark.parametrize(
    ('package', 'name'), EACH, ids=[name for _, name in EACH]
)


@each
def test_it_imports_no_other(package, name):
    path = Path(package.__file__).parent / name
    for file in [path.with_suffix('.py')] if not path.is_dir() else path.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [getattr(node, 'module', None) or '']
                modules += [alias.name for alias in node.names]
                parts = {part for module in modules for part in module.split('.')}
                others = {other for _, other in EACH if other != name}
                assert not parts & others, file


@pytest.mark.parametrize('name', compat.PATCHES)
def test_a_patch_says_what_is_amiss_upstream_and_when_it_may_go(name):
    text = import_module(f'mmravlt.compat.{name}').__doc__
    assert 'Upstream: ' in text and 'May go when ' in text


@each
def test_installing_it_again_changes_nothing(package, name):
    from mmengine.runner import CheckpointLoader, checkpoint

    def state():
        return [vars(checkpoint), dict(CheckpointLoader._schemes)]

    before = [dict(part) for part in state()]
    reader = CheckpointLoader.load_checkpoint.__func__
    import_module(f'{package.__name__}.{name}').install()
    assert state() == before
    assert CheckpointLoader.load_checkpoint.__func__ is reader
