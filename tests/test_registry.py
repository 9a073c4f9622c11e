"""The backbones are found from every library, with one line in a config."""

import subprocess
import sys

import pytest

CUSTOM_IMPORTS = (
    "custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)"
)


@pytest.mark.parametrize('name', ['RAVLT', 'mmravlt.RAVLT', 'L2ViT'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_backbone_is_found_from_every_scope_after_custom_imports(name, scope, tmp_path):
    config = f"{CUSTOM_IMPORTS}\ndefault_scope = '{scope}'\n"
    config += f"model = dict(type='{name}', arch='t', out_indices=(0,))\n"
    (tmp_path / 'config.py').write_text(config)
    script = (
        'from mmengine.config import Config\n'
        "cfg = Config.fromfile('config.py')\n"
        f'from {scope}.registry import MODELS\n'
        'from mmengine.registry import init_default_scope\n'
        'init_default_scope(cfg.default_scope)\n'
        'print(type(MODELS.build(cfg.model)))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    own = name.removeprefix('mmravlt.')
    assert f'mmravlt.models.backbones.{own.lower()}.{own}' in done.stdout


def test_backbone_is_registered_in_programs_started_with_python_m(tmp_path):
    package = tmp_path / 'project'
    package.mkdir()
    (package / '__init__.py').write_text('import mmravlt\n')
    (package / 'train.py').write_text(
        "from mmengine.registry import MODELS\nprint('RAVLT' in MODELS.module_dict)\n"
    )
    done = subprocess.run(
        [sys.executable, '-m', 'project.train'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == 'True', done.stdout + done.stderr
