"""The options of tools/train.py hold for configs that are not from here, too."""

import functools

import pytest

from mmravlt.training import OptionError

from .test_training import choose, config


def of_mmdet():
    """What configs of mmdet have that those here do not, such as RTMDet and YOLOX."""
    cfg = config('boxes')
    cfg.train_cfg.update(max_epochs=300, dynamic_intervals=[(280, 1)])
    cfg.param_scheduler = [
        dict(type='mmdet.QuadraticWarmupLR', begin=0, end=5, by_epoch=True),
        dict(type='CosineAnnealingLR', begin=5, T_max=280, end=285, eta_min=5e-6),
        dict(type='ConstantLR', begin=285, end=300, factor=1),
    ]
    stage = [dict(type='RandomResize', scale=(1333, 800))]
    cfg.custom_hooks = [
        dict(type='mmdet.PipelineSwitchHook', switch_epoch=280, switch_pipeline=stage),
        dict(type='mmdet.YOLOXModeSwitchHook', num_last_epochs=15),
    ]
    cfg.model.data_preprocessor.batch_augments = [
        dict(type='mmdet.BatchSyncRandomResize', random_size_range=(480, 800))
    ]
    cfg.train_dataloader.dataset.pipeline.append(
        dict(type='mmdet.RandomAffine', border=(-320, -320))
    )
    return cfg


@pytest.mark.parametrize('epochs', [1, 10, 30, 600])
def test_what_happens_late_keeps_its_place_and_no_schedule_is_empty(epochs):
    cfg = of_mmdet()
    choose(cfg, epochs=epochs)
    place = round(280 * epochs / 300)
    assert cfg.train_cfg.dynamic_intervals == [(place, 1)]
    assert cfg.custom_hooks[0].switch_epoch == place
    assert cfg.custom_hooks[1].num_last_epochs == max(round(epochs / 20), 1)
    assert all(s.get('begin', 0) < s['end'] for s in cfg.param_scheduler)
    steps = 200 / cfg.train_dataloader.batch_size
    assert cfg.param_scheduler[0].end == min(5, epochs / 10) * steps


def test_sizes_in_hooks_batches_and_borders_follow():
    cfg = of_mmdet()
    choose(cfg, image_size=400)
    assert cfg.custom_hooks[0].switch_pipeline[0].scale == (666, 400)
    augment = cfg.model.data_preprocessor.batch_augments[0]
    assert augment.random_size_range == (240, 400)
    assert cfg.train_dataloader.dataset.pipeline[-1]['border'] == (-160, -160)


@pytest.mark.parametrize('as_list', [True, False])
def test_the_lowest_rate_follows_the_highest(as_list):
    cfg = config('boxes')
    scheduler = dict(type='CosineAnnealingLR', eta_min=1e-5, end=12)
    cfg.param_scheduler = [scheduler] if as_list else scheduler
    cfg.optim_wrapper.optimizer.lr = 1e-3
    choose(cfg, lr=1e-6, epochs=6)
    (found,) = cfg.param_scheduler
    assert found.eta_min == pytest.approx(1e-8)
    assert found.end == 6


def test_epochs_of_repeated_images_have_as_many_more_steps():
    cfg = config('boxes')
    cfg.train_dataloader.batch_size = 2
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=inner)
    assert choose(cfg, epochs=4) == ['4 epochs of 300 steps']


@pytest.mark.parametrize('key', ['init_cfg', 'pretrained'])
@pytest.mark.parametrize('backbone', [True, False])
def test_other_weights_replace_those_of_the_config(key, backbone):
    cfg = config('boxes')
    place = cfg.model.backbone if backbone else cfg.model
    place[key] = dict(type='Pretrained', checkpoint='x')
    if key == 'pretrained':
        place[key] = 'torchvision://resnet50'
    choose(cfg, weights='none')
    assert place[key] is None


@pytest.mark.parametrize(
    'kind,freezes',
    [('mmdet.ResNet', True), ('mmdet.SSDVGG', False), ('mmdet.HRNet', False)],
)
def test_stages_freeze_where_the_backbone_can(kind, freezes):
    cfg = config('boxes')
    cfg.model.backbone = dict(type=kind)
    if freezes:
        cfg.model.backbone.depth = 18
        choose(cfg, freeze=2)
        assert cfg.model.backbone.frozen_stages == 2
    else:
        with pytest.raises(OptionError, match=kind.split('.')[1]):
            choose(cfg, freeze=2)


def test_more_stages_than_there_are_do_not_freeze():
    with pytest.raises(OptionError, match='--freeze 9 .* stages up to 4'):
        choose(config('boxes'), freeze=9)


def test_all_checkpoints_are_kept_though_the_config_keeps_few():
    cfg = config('boxes')
    cfg.default_hooks.checkpoint.max_keep_ckpts = 3
    choose(cfg, keep='all')
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == -1


@pytest.mark.parametrize('name', ['boxes', 'segmentation'])
def test_options_make_what_a_config_leaves_out(name):
    cfg = config(name)
    cfg.pop('default_hooks')
    cfg.pop('visualizer')
    cfg.pop('param_scheduler')
    choose(cfg, keep='best,last', logger='tensorboard', epochs=5)
    hook = cfg.default_hooks.checkpoint
    assert (hook.type, hook.by_epoch) == ('CheckpointHook', name == 'boxes')
    assert hook.interval == cfg.train_cfg.val_interval
    assert cfg.visualizer.vis_backends[0].type == 'TensorboardVisBackend'


@pytest.mark.parametrize(
    'missing,options,sentence',
    [
        ('val_dataloader', dict(patience=3), 'need a config that evaluates'),
        ('val_dataloader', dict(keep='best'), 'need a config that evaluates'),
        ('optim_wrapper.optimizer.lr', dict(lr=1e-3), 'one optimiser and a rate'),
        ('model.backbone', dict(freeze=1), 'a backbone with frozen_stages'),
    ],
)
def test_options_that_a_config_cannot_follow_are_refused(missing, options, sentence):
    cfg = config('boxes')
    *parents, last = missing.split('.')
    node = functools.reduce(lambda part, key: part[key], parents, cfg)
    node.pop(last)
    with pytest.raises(OptionError, match=sentence):
        choose(cfg, **options)
