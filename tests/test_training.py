"""The options of tools/train.py change all that depends on them in a config."""

import copy
import functools
import math
import re

import pytest
from mmengine.config import Config

from mmravlt import config_path, tasks
from mmravlt.data import Prepared
from mmravlt.schedules import doubts, is_warm_up
from mmravlt.tasks.config import dicts
from mmravlt.training import OptionError, TrainingOptions, use_image_size, use_options

LEAVES = dict(
    detection='mmdet/mask_rcnn_ravlt_t_1x.py',
    boxes='mmdet/retinanet_ravlt_t_1x.py',
    multi_scale='mmdet/mask_rcnn_ravlt_s_3x.py',
    panoptic='mmdet/panoptic_fpn_ravlt_t_1x.py',
    segmentation='mmseg/semantic_fpn_ravlt_t_1x.py',
    upernet='mmseg/upernet_ravlt_s_2x.py',
    classification='mmpretrain/ravlt_t_in1k.py',
    l2vit='mmpretrain/l2vit_t_in1k.py',
)
ITERATIONS = ('segmentation', 'upernet')


@functools.cache
def read(name):
    return Config.fromfile(config_path(LEAVES[name]))


def config(name):
    return copy.deepcopy(read(name))


def data(images, val=20):
    splits = dict(train=dict(images=images), val=dict(images=val))
    return Prepared('some', ['a', 'b'], splits)


def choose(cfg, images=200, **options):
    use_image_size(cfg, options.get('image_size'))
    return use_options(cfg, TrainingOptions(**options), data(images))


def total_steps(cfg, images):
    if 'max_iters' in cfg.train_cfg:
        return cfg.train_cfg.max_iters
    steps = images / cfg.train_dataloader.batch_size
    steps = math.floor(steps) if cfg.train_dataloader.get('drop_last') else steps
    return cfg.train_cfg.max_epochs * math.ceil(steps)


def in_steps(cfg, scheduler, images):
    """When a schedule ends, in iterations."""
    if not scheduler.get('by_epoch', True):
        return scheduler.end
    return scheduler.end * total_steps(cfg, images) / cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', LEAVES)
def test_without_options_a_config_stays_as_it_is(name):
    cfg = config(name)
    assert choose(cfg) == []
    assert cfg.to_dict() == config(name).to_dict()


@pytest.mark.parametrize('name', LEAVES)
@pytest.mark.parametrize(('epochs', 'images'), [(3, 50), (9, 200), (500, 1000)])
def test_the_schedule_follows_the_length_of_the_run(name, epochs, images):
    cfg = config(name)
    choose(cfg, images, epochs=epochs, batch_size=4)
    total = total_steps(cfg, images)
    assert epochs * (images // 4) <= total <= epochs * math.ceil(images / 4)
    schedulers = cfg.param_scheduler
    warm_ups = [s for s in schedulers if is_warm_up(s)]
    for scheduler in warm_ups:
        assert 1 <= in_steps(cfg, scheduler, images) <= max(total / 10, 1)
    others = [s for s in schedulers if not is_warm_up(s)]
    assert max(in_steps(cfg, s, images) for s in others) == total
    for scheduler in others:
        for step in scheduler.get('milestones', []):
            assert 1 <= step <= cfg.train_cfg.max_epochs
    assert not doubts(cfg, data(images))
    # evaluated and saved within the run
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    assert 1 <= cfg.train_cfg.val_interval <= length
    assert 1 <= cfg.default_hooks.checkpoint.interval <= length


def test_milestones_keep_their_place_in_the_run():
    cfg = config('multi_scale')
    assert cfg.param_scheduler[1].milestones == [27, 33]  # of 36
    choose(cfg, epochs=12)
    assert cfg.param_scheduler[1].milestones == [9, 11]
    assert cfg.param_scheduler[1].end == 12


@pytest.mark.parametrize(
    ('train', 'val', 'epochs', 'interval'),
    [(20, 87, 40, 9), (205, 87, 12, 1), (20, 87, 8, 2), (118_000, 5000, 12, 1)],
)
def test_evaluations_see_at_most_half_as_many_images_as_training(
    train, val, epochs, interval
):
    cfg = config('boxes')
    said = use_options(cfg, TrainingOptions(epochs=epochs), data(train, val))
    assert cfg.train_cfg.val_interval == interval
    assert any(f'every {interval} epochs' in line for line in said) == (interval > 1)


@pytest.mark.parametrize('options', [dict(batch_size=2), dict(epochs=40, patience=2)])
def test_evaluations_stay_where_the_length_is_not_chosen_or_a_run_may_end_early(
    options,
):
    cfg = config('boxes')
    use_options(cfg, TrainingOptions(**options), data(20, 87))
    assert cfg.train_cfg.val_interval == 1


@pytest.mark.parametrize(
    ('name', 'metric'),
    [
        ('boxes', dict(type='VOCMetric', metric='mAP')),
        ('detection', dict(metric='bbox')),
        ('segmentation', dict(iou_metrics=['mDice'])),
        ('classification', dict(topk=(5,))),
        ('classification', dict(prefix='mine')),
    ],
)
def test_without_the_tasks_score_only_the_last_checkpoint_is_kept(name, metric):
    cfg = config(name)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    cfg.val_evaluator = {**cfg.val_evaluator, **metric}
    choose(cfg, epochs=5)
    hook = cfg.default_hooks.checkpoint
    assert (hook.save_best, hook.max_keep_ckpts, hook.save_last) == (None, 1, True)


@pytest.mark.parametrize('name', LEAVES)
def test_the_score_of_each_task_is_given_by_its_configs(name):
    cfg = config(name)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    choose(cfg, epochs=5)
    assert cfg.default_hooks.checkpoint.save_best == tasks.of(cfg).score(cfg)


def test_of_a_run_of_chosen_length_the_best_and_the_last_checkpoint_are_kept():
    cfg = config('boxes')
    choose(cfg, epochs=5)
    hook = cfg.default_hooks.checkpoint
    assert (hook.save_best, hook.rule) == ('coco/bbox_mAP', 'greater')
    assert hook.max_keep_ckpts == 1
    assert hook.save_last


def test_what_a_config_says_about_checkpoints_stays():
    cfg = config('classification')  # the three last ones, and the best
    choose(cfg, epochs=5)
    hook = cfg.default_hooks.checkpoint
    assert (hook.max_keep_ckpts, hook.save_best) == (3, 'auto')


def test_a_long_run_keeps_its_warm_up():
    cfg = config('detection')
    choose(cfg, images=118_000, epochs=24, batch_size=2, lr=1e-4)
    assert cfg.param_scheduler[0].end == 500


@pytest.mark.parametrize('name', LEAVES)
def test_the_rate_follows_the_batch(name):
    cfg, before = config(name), config(name)
    choose(cfg, batch_size=4)
    base = before.auto_scale_lr.base_batch_size
    rate = before.optim_wrapper.optimizer.lr * 4 / base
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
    assert cfg.train_dataloader.batch_size == 4
    assert not cfg.auto_scale_lr.get('enable')


def test_the_rate_follows_the_number_of_processes(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '8')
    cfg = config('detection')
    choose(cfg, batch_size=2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4)


def test_a_given_rate_stays():
    cfg = config('classification')
    choose(cfg, batch_size=50, lr=3e-4)
    assert cfg.optim_wrapper.optimizer.lr == 3e-4


@pytest.mark.parametrize('rate', [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(OptionError, match=f'above 0; it is {rate}'):
        choose(config('boxes'), lr=rate)


def test_a_batch_without_a_known_rate_is_refused():
    cfg = config('boxes')
    cfg.pop('auto_scale_lr')
    with pytest.raises(OptionError, match='--batch-size needs --lr'):
        choose(cfg, batch_size=4)


@pytest.mark.parametrize('name', ITERATIONS)
def test_epochs_of_a_config_in_iterations_need_data(name):
    with pytest.raises(
        OptionError, match='--epochs needs --data here.*counts 80000|16'
    ):
        use_options(config(name), TrainingOptions(epochs=3))


def test_epochs_need_no_data_where_the_config_counts_them():
    cfg = config('boxes')
    use_options(cfg, TrainingOptions(epochs=6))
    assert cfg.train_cfg.max_epochs == 6
    assert cfg.param_scheduler[1].milestones == [4, 6]


def sizes(cfg, keys=('scale', 'scales', 'crop_size', 'size')):
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    nodes = [loader.dataset for loader in loaders] + [cfg.model.data_preprocessor]
    return [node[k] for node in dicts(nodes) for k in keys if k in node]


@pytest.mark.parametrize(
    'name,side,expected',
    [
        ('detection', 400, [(666, 400)] * 3),
        ('boxes', 240, [(400, 240)] * 3),
        ('segmentation', 256, [(1024, 256), (256, 256), (1024, 256), (1024, 256)]),
    ],
)
def test_all_sizes_follow_the_shorter_side(name, side, expected):
    cfg = config(name)
    choose(cfg, image_size=side)
    found = [tuple(size) for size in sizes(cfg)]
    if name == 'segmentation':
        expected = [*expected, (256, 256)]  # of the data preprocessor
    assert found == expected


def test_lists_of_sizes_and_crops_follow():
    cfg = config('multi_scale')
    choose(cfg, image_size=400)
    found = sizes(cfg)
    assert (240, 666) in found[0] and (400, 666) in found[0]
    assert (192, 300) in found  # the crop, (384, 600) before


def test_the_resizing_before_a_crop_follows():
    cfg = config('classification')
    cfg.model.data_preprocessor = {}
    choose(cfg, image_size=112)
    pipeline = cfg.val_dataloader.dataset.pipeline
    assert [s.get('scale') or s.get('crop_size') for s in pipeline[1:3]] == [128, 112]


def test_sliding_windows_and_fixed_positions_follow():
    cfg = config('segmentation')
    cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 512), stride=(340, 340))
    cfg.model.backbone.img_size = 512
    choose(cfg, image_size=256)
    assert cfg.model.test_cfg.crop_size == (256, 256)
    assert cfg.model.test_cfg.stride == (170, 170)
    assert cfg.model.backbone.img_size == 256


def test_small_options_reach_their_place():
    cfg = config('detection')
    said = choose(
        cfg, workers=0, seed=3, weights='x.pth', freeze=2, logger='tensorboard'
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert (loader.num_workers, loader.persistent_workers) == (0, False)
    assert cfg.randomness.seed == 3
    assert cfg.load_from == 'x.pth'
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.backbone.frozen_stages == 2
    assert cfg.visualizer.vis_backends[-1].type == 'TensorboardVisBackend'
    assert len(said) == 5


def test_random_weights_are_chosen_by_none():
    cfg = config('detection')
    choose(cfg, weights='none')
    assert cfg.load_from is None
    assert cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize(
    'name,score',
    [
        ('detection', 'coco/segm_mAP'),
        ('boxes', 'coco/bbox_mAP'),
        ('panoptic', 'coco_panoptic/PQ'),
        ('segmentation', 'mIoU'),
        ('classification', 'accuracy/top1'),
    ],
)
def test_the_best_checkpoint_is_that_of_the_tasks_score(name, score):
    cfg = config(name)
    choose(cfg, patience=3)
    hook = cfg.default_hooks.checkpoint
    assert (hook.save_best, hook.rule) == (score, 'greater')
    assert (hook.max_keep_ckpts, hook.save_last) == (1, True)
    stop = cfg.custom_hooks[-1]
    assert (stop.type, stop.monitor, stop.patience) == ('EarlyStoppingHook', score, 3)
    assert stop.min_delta == 0.0
    assert tasks.of(cfg).score(cfg) == score


@pytest.mark.parametrize(
    'keep,best,kept,last,interval',
    [
        ('best', 'mIoU', 1, False, -1),
        ('last', None, 1, True, 16000),
        ('best,last', 'mIoU', 1, True, 16000),
        ('all', 'mIoU', -1, True, 16000),
    ],
)
def test_checkpoints_are_kept_as_asked(keep, best, kept, last, interval):
    cfg = config('segmentation')
    cfg.default_hooks.checkpoint.interval = 16000
    choose(cfg, keep=keep)
    hook = cfg.default_hooks.checkpoint
    assert hook.save_best == best
    assert hook.get('max_keep_ckpts', -1) == kept
    assert hook.get('save_last', True) == last
    assert hook.interval == interval


@pytest.mark.parametrize(
    'name,images,sentence',
    [
        ('boxes', 20, 'the run has 120 steps, but .* rises during the first 500'),
        ('classification', 100, 'a step takes 128 images, but there are only 100'),
    ],
)
def test_a_run_that_cannot_learn_is_said(name, images, sentence):
    (said,) = doubts(config(name), data(images))
    assert re.search(sentence, said)
