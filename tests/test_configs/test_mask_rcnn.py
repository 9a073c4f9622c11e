"""The Mask R-CNN configs are the release's recipe; checked on what they build."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

from mmravlt import config_path
from mmravlt.compat.device import adapt_to_device

LEAVES = [
    *(f'mask_rcnn_ravlt_{arch}_1x' for arch in 'tsbl'),
    *(f'mask_rcnn_ravlt_{arch}_3x' for arch in 'sbl'),
]
# Tables 4 and 6 of the paper: parameters in millions.
PAPER_PARAMS = dict(t=33, s=44, b=67, l=114)


def read(leaf):
    return Config.fromfile(config_path(f'mmdet/{leaf}.py'))


def build(cfg):
    init_default_scope('mmdet')
    from mmdet.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_every_leaf_is_covered():
    folder = Path(config_path('mmdet/mask_rcnn_ravlt_t_1x.py')).parent
    assert sorted(LEAVES) == sorted(p.stem for p in folder.glob('mask_rcnn_*.py'))


@pytest.mark.parametrize('leaf', LEAVES)
def test_model_is_built_with_the_size_in_the_paper(leaf):
    cfg = read(leaf)
    arch = leaf.split('_')[3]
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch) == ('RAVLT', arch)
    assert backbone.norm_cfg.type == 'SyncBN'
    assert backbone.init_cfg.checkpoint.endswith(f'/RAVLT_{arch.upper()}.pth')
    model = build(cfg)
    params = sum(p.numel() for p in model.parameters()) / 1e6
    assert abs(params - PAPER_PARAMS[arch]) <= 0.6
    drop_path = model.backbone.layers[3].blocks[-1].drop_path.drop_prob
    assert drop_path == pytest.approx(dict(t=0.10, s=0.15, b=0.40, l=0.55)[arch])
    preprocessor = model.data_preprocessor
    means = preprocessor.mean.flatten()
    assert preprocessor._channel_conversion
    assert means.shape == (3,)
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize('leaf', LEAVES)
def test_optimizer_decays_everything_but_names_with_norm(leaf):
    cfg = read(leaf)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert 'clip_grad' not in cfg.optim_wrapper
    adapt_to_device(cfg)
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    names = {id(p): name for name, p in model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        assert group['lr'] == pytest.approx(1e-4)
        for parameter in group['params']:
            name = names[id(parameter)]
            seen.add(name)
            assert group['weight_decay'] == (0 if 'norm' in name else 0.05), name
    assert seen == set(names.values())


@pytest.mark.parametrize(
    'leaf,epochs,drops',
    [(leaf, 12, (8, 11)) for leaf in LEAVES if leaf.endswith('1x')]
    + [(leaf, 36, (27, 33)) for leaf in LEAVES if leaf.endswith('3x')],
)
def test_learning_rate_warms_up_500_iterations_and_drops_twice(leaf, epochs, drops):
    cfg = read(leaf)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_cfg.val_interval == 1
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-4)
    iterations = 1000  # per epoch; any number above the warm-up
    schedulers = [
        PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **settings))
        for settings in cfg.param_scheduler
    ]
    curve = []
    for _ in range(epochs):
        for _ in range(iterations):
            curve.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    first, second = (drop * iterations for drop in drops)
    assert curve[0] == pytest.approx(1e-7)
    assert curve[250] == pytest.approx(1e-4 * (0.001 + 0.999 * 250 / 499), rel=1e-3)
    assert curve[500] == curve[first - 1] == pytest.approx(1e-4)
    assert curve[first] == curve[second - 1] == pytest.approx(1e-5)
    assert curve[second] == curve[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize('leaf', LEAVES)
def test_batch_is_16_images_on_8_gpus_except_for_the_large_3x(leaf):
    per_gpu = 1 if leaf == 'mask_rcnn_ravlt_l_3x' else 2
    cfg = read(leaf)
    assert cfg.train_dataloader.batch_size == per_gpu
    assert cfg.auto_scale_lr.base_batch_size == 8 * per_gpu


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf.endswith('1x')])
def test_1x_trains_and_tests_at_1333_by_800_with_flips(leaf):
    cfg = read(leaf)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['Resize'].scale == (1333, 800) and steps['Resize'].keep_ratio
    assert steps['RandomFlip'].prob == 0.5
    test_steps = {s.type: s for s in cfg.test_dataloader.dataset.pipeline}
    assert test_steps['Resize'].scale == (1333, 800)


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf.endswith('3x')])
def test_3x_images_come_in_many_sizes_within_800_by_1333(leaf):
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    init_default_scope('mmdet')
    cfg = read(leaf)
    (choice,) = [
        step
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'RandomChoice'
    ]
    plain, crop = choice.transforms
    assert [s.type for s in plain] == ['RandomChoiceResize']
    sides = [min(scale) for scale in plain[0].scales]
    assert sides == list(range(480, 801, 32))
    assert [min(scale) for scale in crop[0].scales] == [400, 500, 600]
    assert tuple(crop[1].crop_size) == (384, 600)
    assert crop[2].scales == plain[0].scales

    import numpy as np

    shapes = set()
    for branch in (plain, crop):
        transform = Compose([TRANSFORMS.build(step) for step in branch])
        for _ in range(5):
            image = np.zeros((427, 640, 3), np.uint8)
            shape = transform(dict(img=image, img_shape=(427, 640)))['img'].shape[:2]
            assert 480 <= min(shape) <= 800 and max(shape) <= 1333
            shapes.add(shape)
    assert len(shapes) > 3
    assert all(
        max(scale) == 1333
        for step in (plain[0], crop[0], crop[2])
        for scale in step.scales
    )


@pytest.mark.parametrize('leaf', LEAVES)
def test_without_a_gpu_the_same_config_runs_in_float32_with_bn(leaf, monkeypatch):
    monkeypatch.setattr('mmravlt.compat.device.get_device', lambda: 'cpu')
    said = []
    monkeypatch.setattr(
        'mmravlt.compat.device.print_log', lambda text, **_: said.append(text)
    )
    cfg = read(leaf)
    adapt_to_device(cfg)
    assert cfg.model.backbone.norm_cfg.type == 'BN'
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper
    assert len(said) == 1
    assert 'SyncBN is replaced by BN, fp16 is replaced by float32' in said[0]


def test_with_a_gpu_the_config_stays_as_it_is(monkeypatch):
    monkeypatch.setattr('mmravlt.compat.device.get_device', lambda: 'cuda')
    cfg = read('mask_rcnn_ravlt_t_1x')
    before = cfg.to_dict()
    adapt_to_device(cfg)
    assert cfg.to_dict() == before
