"""The command that trains peers on one dataset."""

import csv
import re
import statistics

import cv2
import numpy as np
import pytest
import torch

from benchmarks import finetune, models, recipes
from benchmarks.errors import BenchmarkError
from demo.shapes import write_shapes

from .test_benchmarks import read, run

# A ResNet-18 of few channels by the name of a peer, and one that is still narrower
SMALL = {
    'small': ('mmdet', dict(type='ResNet', depth=18, base_channels=8), (8, 16, 32, 64)),
    'tiny': ('mmdet', dict(type='ResNet', depth=18, base_channels=4), (4, 8, 16, 32)),
}
OPTIONS = ['--image-size', 32, '--batch-size', 2, '--seeds', 1]


@pytest.fixture(autouse=True)
def small_peers(monkeypatch):
    for name, peer in SMALL.items():
        monkeypatch.setitem(models.OTHERS, name, peer)


def write_images(folder, number=4, classes=('dark', 'bright')):
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label, value in zip(classes, (60, 190), strict=True):
            (folder / split / label).mkdir(parents=True)
            for i in range(number):
                image = rng.integers(value - 20, value + 20, (36, 40, 3), np.uint8)
                cv2.imwrite(str(folder / split / label / f'{i}.png'), image)


def write_maps(folder):
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'annotations'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(2):
            image = rng.integers(0, 100, (48, 64, 3), np.uint8)
            label = np.zeros((48, 64), np.uint8)
            label[:, : 20 + 8 * i] = 1
            image[label == 1] += 150
            cv2.imwrite(str(folder / 'images' / split / f'{i}.png'), image)
            cv2.imwrite(str(folder / 'annotations' / split / f'{i}.png'), label)
    (folder / 'classes.txt').write_text('dark\nbright\n')


def write_objects(folder):
    write_shapes(folder, num_train=2, num_val=1, size=64)


def plan(folder, task='classification', batch=2):
    setting = recipes.Setting(task, 32, batch)
    return recipes.read(str(folder), setting, {})[0], setting


TASKS = {
    'classification': (write_images, [], 'accuracy/top1', ''),
    'segmentation': (write_maps, [], 'mIoU', 'mAcc'),
    'detection': (write_objects, [], 'coco/bbox_mAP', 'coco/bbox_mAP_50'),
    'instance': (
        *(write_objects, ['--task', 'instance'], 'coco/segm_mAP', 'coco/bbox_mAP'),
    ),
}


@pytest.mark.parametrize('task', TASKS)
def test_finetune_trains_peers_for_the_task_of_the_data(task, tmp_path, capsys):
    write, options, metric, second = TASKS[task]
    write(tmp_path / 'data')
    arguments = ['--data', tmp_path / 'data', *options, *OPTIONS, '--steps', 2]
    run('finetune', *arguments, '--models', 'small', 'tiny', '--out', tmp_path)
    (path,) = tmp_path.glob('*.csv')
    assert path.name == f'finetune_data_{task}_32px_steps2_batch2_random.csv'
    rows = read(path)
    assert [row['model'] for row in rows] == ['small', 'tiny']
    for row in rows:
        assert (row['task'], row['metric'], row['weights']) == (task, metric, 'none')
        assert 0 <= float(row['score']) <= 100
        assert 0 < float(row['loss']) < 100
        if second:
            assert row['second_metric'] == second
            assert 0 <= float(row['second']) <= 100
        assert 0 < float(row['seconds_per_step']) <= float(row['seconds'])
    assert int(rows[0]['params']) > int(rows[1]['params'])
    printed = capsys.readouterr().out
    assert f'{task}: {recipes.RECIPES[task].head}; 32 pixels, 2 steps' in printed
    line = f'{float(rows[1]["score"]):.1f}'
    assert re.search(rf'\| tiny +\| +none \| .*\| +{line} \|', printed)


def test_finetune_learns(tmp_path):
    write_images(tmp_path, 8)
    cfg, setting = plan(tmp_path, batch=8)
    row = recipes.train(cfg, setting, 25, 'small', 0, 3e-3, None, lambda: None)
    assert row['score'] == 100


def test_finetune_judges_each_model_by_its_best_rate(tmp_path, capsys):
    write_images(tmp_path / 'data')
    options = ['--data', tmp_path / 'data', *OPTIONS, '--seeds', 2, '--steps', 2]
    options += ['--lr', 1e-4, 1e-2, '--models', 'tiny', 'small']
    run('finetune', *options, '--out', tmp_path / 'x.csv')
    rows = read(tmp_path / 'x.csv')
    names = [(row['seed'], row['model'], float(row['lr'])) for row in rows]
    assert names == [
        (seed, model, lr)
        for seed in '01'
        for model in ('tiny', 'small')
        for lr in (1e-4, 1e-2)
    ]
    means = {
        lr: statistics.mean(
            float(row['score'])
            for row in rows
            if row['model'] == 'tiny' and float(row['lr']) == lr
        )
        for lr in (1e-4, 1e-2)
    }
    best = max(means, key=means.get)
    printed = capsys.readouterr().out
    assert re.search(rf'\| tiny .*\| +{best:g} \| +{means[best]:.1f} ±', printed)


def test_best_rate_is_that_of_the_best_mean_and_spread_is_over_its_seeds():
    scores = {1e-3: [40.0, 42.0, 44.0], 1e-4: [70.0, 20.0, 20.0]}
    rows = [
        dict(
            *(dict(model='m', lr=lr, score=score, second='', weights='none'),),
            **dict(params=2_000_000, seconds_per_step=0.5, seconds=10.0),
            **dict(metric='mIoU', second_metric='mAcc'),
        )
        for lr, own in scores.items()
        for score in own
    ]
    assert {row['lr'] for row in finetune.best_rate(rows)} == {1e-3}
    cells = [cell.strip() for cell in finetune.table(rows).splitlines()[-1].split('|')]
    assert cells[1:-1] == [
        *('m', 'none', '2.00', '0.001', '42.0 ± 2.0', '–', '3', '0.500', '10'),
    ]


@pytest.mark.parametrize('task', ['classification', 'segmentation', 'detection'])
def test_all_models_see_the_same_normalised_images(task, tmp_path, monkeypatch):
    TASKS[task][0](tmp_path)
    cfg, setting = plan(tmp_path, task)
    seen, original = [], models._Maps.forward

    def watched(self, images):
        if self.training:
            seen.append(images.clone())
        return original(self, images)

    monkeypatch.setattr(models._Maps, 'forward', watched)
    for name, seed in [('small', 0), ('tiny', 0), ('small', 1)]:
        recipes.train(cfg, setting, 3, name, seed, 1e-3, None, lambda: None)
    first, second, third = (
        torch.cat([x.flatten() for x in seen[i : i + 3]]) for i in (0, 3, 6)
    )
    assert torch.equal(first, second)
    assert first.shape != third.shape or not torch.equal(first, third)
    assert first.abs().max() < 3


def test_the_same_seed_gives_the_same_training(tmp_path):
    write_images(tmp_path)
    cfg, setting = plan(tmp_path)
    losses = [
        recipes.train(cfg, setting, 3, 'small', seed, 1e-3, None, lambda: None)['loss']
        for seed in (0, 0, 1)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) != losses[2]


def test_backbones_start_as_their_libraries_initialise_them(tmp_path):
    """And the release's formulas with the weights of RAVLT."""
    write_images(tmp_path)
    cfg, _ = plan(tmp_path)
    conv = recipes.build(cfg, 'convnext_t', 0, None).backbone.backbone
    assert conv.stages[0][0].pointwise_conv1.weight.std().item() == pytest.approx(
        0.02, rel=0.05
    )
    swin = recipes.build(cfg, 'swin_t', 0, None).backbone.backbone
    assert not swin.stages[0].blocks[0].attn.w_msa.qkv.bias.any()
    ours, theirs = (
        recipes.build(cfg, name, 0, None).backbone.state_dict()
        for name in ('ravlt_t', 'release_t')
    )
    weights = [key for key in ours if key.endswith('ffn.fc1.weight')]
    assert len(weights) > 10
    for key in weights:
        assert theirs[key].std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize('steps', [1, 9, 40])
def test_the_schedule_warms_up_for_a_tenth_and_falls_to_nothing(steps):
    from mmengine.optim import CosineAnnealingLR, LinearLR

    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], 1.0)
    kinds = dict(LinearLR=LinearLR, CosineAnnealingLR=CosineAnnealingLR)
    schedulers = [
        kinds[given.pop('type')](optimizer, **given)
        for given in recipes.schedule(steps)
    ]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    top = steps // 10
    assert rates[top] == max(rates) == pytest.approx(1.0)
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)
    assert steps < 9 or rates[-1] < 0.05


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_backbone_starts_from_a_file(prefix, tmp_path, capsys):
    write_images(tmp_path / 'data')
    cfg, _ = plan(tmp_path / 'data')
    wanted = recipes.build(cfg, 'small', 7, None).backbone.backbone.state_dict()
    file = tmp_path / 'small.pth'
    torch.save(dict(state_dict={prefix + k: v for k, v in wanted.items()}), file)
    got = recipes.build(cfg, 'small', 0, str(file)).backbone.backbone.state_dict()
    assert all(torch.equal(got[key], value) for key, value in wanted.items())
    options = ['--data', tmp_path / 'data', *OPTIONS, '--steps', 1, '--out', tmp_path]
    run('finetune', *options, '--models', 'small', 'tiny', '--weights', f'small={file}')
    (path,) = tmp_path.glob('*_weights.csv')
    assert [row['weights'] for row in read(path)] == [str(file), 'none']
    assert re.search(r'\| small \| +small.pth \|', capsys.readouterr().out)


def test_ravlt_starts_from_its_release(tmp_path):
    write_images(tmp_path / 'data')
    cfg, _ = plan(tmp_path / 'data')
    wanted = models.build_backbone('ravlt_t').state_dict()
    file = tmp_path / 'ravlt.pth'
    torch.save(dict(model=wanted), file)
    got = recipes.build(cfg, 'ravlt_t', 0, str(file)).backbone.backbone.state_dict()
    assert all(torch.equal(got[key], value) for key, value in wanted.items())


def test_swin_starts_from_a_file_of_its_authors(tmp_path):
    write_images(tmp_path / 'data')
    cfg, _ = plan(tmp_path / 'data')
    swin = models.build_backbone('swin_t')
    names = {'stages': 'layers', 'attn.w_msa': 'attn', 'projection': 'proj'}
    names.update({'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2'})
    theirs = {}
    for key, value in swin.state_dict().items():
        for ours, other in names.items():
            key = key.replace(ours, other)
        theirs[key] = value
    torch.save(dict(model=theirs), tmp_path / 'swin.pth')
    file = str(tmp_path / 'swin.pth')
    got = recipes.build(cfg, 'swin_t', 0, file).backbone.backbone.state_dict()
    for key, value in swin.state_dict().items():
        if 'downsample' not in key:  # which the converter orders in another way
            assert torch.equal(got[key], value), key


def test_weights_of_another_backbone_are_refused(tmp_path):
    write_images(tmp_path / 'data')
    cfg, _ = plan(tmp_path / 'data')
    file = tmp_path / 'tiny.pth'
    torch.save(models.build_backbone('tiny').state_dict(), file)
    for name, message in [
        ('small', 'lacks 60 of the weights of small .* such as conv1.weight; give a'),
        ('ravlt_t', 'ravlt_t=.*tiny.pth'),
    ]:
        with pytest.raises(BenchmarkError, match=message):
            recipes.build(cfg, name, 0, str(file))


def test_rows_of_trainings_before_an_interruption_stay(tmp_path, monkeypatch):
    write_images(tmp_path / 'data')
    train = recipes.train

    def interrupted(cfg, setting, steps, name, *others):
        if name == 'tiny':
            raise KeyboardInterrupt
        return train(cfg, setting, steps, name, *others)

    monkeypatch.setattr(finetune, 'train', interrupted)
    options = ['--data', tmp_path / 'data', *OPTIONS, '--steps', 1]
    options += ['--models', 'small', 'tiny', '--out', tmp_path / 'x.csv']
    with pytest.raises(KeyboardInterrupt):
        run('finetune', *options)
    with (tmp_path / 'x.csv').open(newline='') as file:
        assert [row['model'] for row in csv.DictReader(file)] == ['small']


@pytest.mark.parametrize(
    'options,message',
    [
        (['--models', 'x'], 'there is no backbone x; known are ravlt_'),
        (['--models', 'tiny', 'tiny'], 'a name stands twice'),
        (['--models', 'ravlt_t_optimized'], 'is for --mode infer only'),
        (['--data', 'nowhere'], '--data nowhere: there is no such folder'),
        (['--task', 'segmentation'], 'images'),
        (['--batch-size', 99], 'has 8 training images, --batch-size is 99; give 8 or'),
        (['--lr', 0], '--lr is 0; give a rate between 0 and 1'),
        (['--lr', 1e-3, 0.001], 'a rate stands twice in --lr 0.001 0.001'),
        (['--image-size', 31], '--image-size is 31; give at least 32 pixels'),
        (['--workers', -1], '--workers is -1; give 0 or more'),
        (['--weights', 'x=y'], '--weights x=y names no contestant; give NAME=FILE'),
        (['--weights', 'tiny=y'], '--weights tiny=y: there is no file y'),
    ],
)
def test_finetune_says_what_is_wrong(options, message, tmp_path):
    write_images(tmp_path)
    given = ['--data', tmp_path, *OPTIONS, '--models', 'tiny', '--steps', 1, *options]
    with pytest.raises(SystemExit, match=message):
        run('finetune', *given)


def test_finetune_asks_for_the_task_where_the_files_do_not_decide(tmp_path):
    write_maps(tmp_path)
    write_objects(tmp_path)
    with pytest.raises(BenchmarkError, match='--task with one of detection, segm'):
        finetune.find_task(str(tmp_path))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BenchmarkError, match='--task with one of detection, segm'):
        finetune.find_task(str(tmp_path / 'empty'))
