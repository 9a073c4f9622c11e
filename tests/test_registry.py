"""The backbones are found from every library, with one line in a config."""

import pytest

from .processes import run_python

CUSTOM_IMPORTS = (
    "custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)"
)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_backbones_are_found_from_every_scope_after_custom_imports(scope, tmp_path):
    config = f"{CUSTOM_IMPORTS}\ndefault_scope = '{scope}'\n"
    for i, name in enumerate(('RAVLT', 'mmravlt.RAVLT', 'L2ViT')):
        config += f"model{i} = dict(type='{name}', arch='t', out_indices=(0,))\n"
    (tmp_path / 'config.py').write_text(config)
    script = (
        'from mmengine.config import Config\n'
        "cfg = Config.fromfile('config.py')\n"
        f'from {scope}.registry import MODELS\n'
        'from mmengine.registry import init_default_scope\n'
        'init_default_scope(cfg.default_scope)\n'
        'for i in range(3):\n'
        "    print(type(MODELS.build(cfg[f'model{i}'])))\n"
    )
    said = run_python('-c', script, cwd=tmp_path).stdout.splitlines()
    ravlt, l2vit = (
        f"<class 'mmravlt.models.backbones.{name.lower()}.{name}'>"
        for name in ('RAVLT', 'L2ViT')
    )
    assert said[-3:] == [ravlt, ravlt, l2vit]


def test_backbone_is_registered_in_programs_started_with_python_m(tmp_path):
    package = tmp_path / 'project'
    package.mkdir()
    (package / '__init__.py').write_text('import mmravlt\n')
    (package / 'train.py').write_text(
        "from mmengine.registry import MODELS\nprint('RAVLT' in MODELS.module_dict)\n"
    )
    done = run_python('-m', 'project.train', cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == 'True'
