"""Configs of other projects inherit from ours, whatever folder they lie in."""

import os
from pathlib import Path

import pytest

from mmravlt import config_path

from ..processes import run_python

OVERRIDES = """
model = dict(roi_head=dict(bbox_head=dict(num_classes=7)))
train_cfg = dict(max_epochs=5)
"""
BASES = {
    'by relative path': lambda folder: repr(
        os.path.relpath(config_path('mmdet/mask_rcnn_ravlt_s_3x.py'), folder)
    ),
    'by absolute path': lambda folder: repr(
        config_path('mmdet/mask_rcnn_ravlt_s_3x.py')
    ),
    'by package name': lambda folder: (
        "__import__('mmravlt').config_path('mmdet/mask_rcnn_ravlt_s_3x.py')"
    ),
}


OF_ONE_DETECTOR = """
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
cfg = Config.fromfile('theirs.py')
init_default_scope(cfg.default_scope)
cfg.model.backbone.norm_cfg.type = 'BN'
with torch.device('meta'):
    model = MODELS.build(cfg.model)
assert type(model).__name__ == 'MaskRCNN', type(model)
assert type(model.backbone).__name__ == 'RAVLT', type(model.backbone)
assert len(model.backbone.layers[2].blocks) == 9
assert model.roi_head.bbox_head.num_classes == 7
assert model.roi_head.mask_head.num_classes == 80
assert cfg.train_cfg.max_epochs == 5
assert cfg.param_scheduler[1].milestones == [27, 33]
"""
OF_ALL_LIBRARIES = """
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
for leaf in ('mmdet/retinanet_ravlt_t_1x', 'mmseg/upernet_ravlt_s_2x',
             'mmpretrain/ravlt_t_in1k', 'mmpretrain/ravlt_t_in1k_v2',
             'mmseg/ablation/semantic_fpn_ravlt_t_phi_tanh_1x',
             'mmdet/retinanet_l2vit_t_1x', 'mmpretrain/l2vit_t_in1k'):
    with open('theirs.py', 'w') as file:
        file.write(f"_base_ = __import__('mmravlt').config_path('{leaf}.py')")
    cfg = Config.fromfile('theirs.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    expected = 'L2ViT' if 'l2vit' in leaf else 'RAVLT'
    assert type(model.backbone).__name__ == expected, leaf
"""


def test_configs_in_other_folders_inherit(tmp_path):
    """In processes where nothing of mmravlt is imported before the config."""
    scripts = {'of all libraries by package name': OF_ALL_LIBRARIES}
    scripts.update(dict.fromkeys(BASES, OF_ONE_DETECTOR))
    files = []
    for name, script in scripts.items():
        folder = tmp_path / name
        folder.mkdir()
        if name in BASES:
            config = f'_base_ = {BASES[name](folder)}{OVERRIDES}'
            (folder / 'theirs.py').write_text(config)
        files.append(folder / f'{name}.py')
        files[-1].write_text(script)
    done = run_python(Path(__file__).with_name('run_fresh.py'), *files)
    said = done.stdout.splitlines()
    assert [line for line in said if line.split()[-1] in ('inherits', 'fails')] == [
        f'{name} inherits' for name in scripts
    ], done.stderr[-3000:]


def test_installed_package_carries_configs_and_tools(distribution):
    import mmravlt

    mim = Path(mmravlt.__file__).parent / '.mim'
    assert (mim / 'configs/mmdet/mask_rcnn_ravlt_t_1x.py').is_file()
    assert (mim / 'tools/train.py').is_file()


def test_an_unknown_config_is_named_with_those_that_exist():
    with pytest.raises(FileNotFoundError, match='mask_rcnn_ravlt_x.*_t_1x.py') as error:
        config_path('mmdet/mask_rcnn_ravlt_x.py')
    assert 'mmpretrain/ablation/ravlt_t_without_cpe_in1k.py' in str(error.value)
    assert '_base_' not in str(error.value)
