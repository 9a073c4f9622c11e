"""The backbones are found from every library, with one line in a config."""

import json

import pytest

from .processes import run_python

SCOPES = ('mmdet', 'mmseg', 'mmpretrain', 'mmengine')
CONFIG = """
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)
models = [dict(type=name, arch='t', out_indices=(0,))
          for name in ('RAVLT', 'mmravlt.RAVLT', 'L2ViT')]
"""
# Each scope in a process of its own, in which no other library was imported.
BUILD = """
import importlib, json, os, sys
import torch  # long to import, and of no scope
from mmengine.config import Config
from mmengine.registry import init_default_scope
for scope in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        assert not {'mmravlt', 'mmdet', 'mmseg', 'mmpretrain'} & {*sys.modules}
        cfg = Config.fromfile('config.py')
        models = importlib.import_module(f'{scope}.registry').MODELS
        init_default_scope(scope)
        built = [str(type(models.build(model))) for model in cfg.models]
        print(json.dumps([scope, built]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The classes that each scope builds of the names in ``CONFIG``."""
    folder = tmp_path_factory.mktemp('registry')
    (folder / 'config.py').write_text(CONFIG)
    done = run_python('-c', BUILD, *SCOPES, cwd=folder)
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]
    return dict(map(json.loads, lines)), done.stderr


@pytest.mark.parametrize('scope', SCOPES)
def test_backbones_are_found_from_every_scope_after_custom_imports(scope, built):
    classes, errors = built
    ravlt, l2vit = (
        f"<class 'mmravlt.models.backbones.{name.lower()}.{name}'>"
        for name in ('RAVLT', 'L2ViT')
    )
    assert classes.get(scope) == [ravlt, ravlt, l2vit], errors


def test_backbone_is_registered_in_programs_started_with_python_m(tmp_path):
    package = tmp_path / 'project'
    package.mkdir()
    (package / '__init__.py').write_text('import mmravlt\n')
    (package / 'train.py').write_text(
        "from mmengine.registry import MODELS\nprint('RAVLT' in MODELS.module_dict)\n"
    )
    done = run_python('-m', 'project.train', cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == 'True'
