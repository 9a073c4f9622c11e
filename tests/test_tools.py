"""The command lines; those of several processes are in test_readme.py."""

import functools
import json
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch

from .processes import run_tool, start_tool
from .tiny import NUM_CLASSES, write_project

SCORES = dict(
    mmdet=('coco/bbox_mAP', 'coco/segm_mAP'),
    mmseg=('mIoU',),
    mmpretrain=('accuracy/top1',),
)


def run(folder, tool, *arguments, check=True):
    return run_tool(tool, 'config.py', *arguments, cwd=folder, check=check)


def scalars(work_dir):
    """All records of all runs in a work dir, in order of time."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Trains the small model of a library, once: (folder, what was printed)."""

    @functools.cache
    def train_once(library):
        folder = tmp_path_factory.mktemp(library)
        write_project(folder, library)
        data = ['--data', 'data'] if library == 'mmdet' else []
        done = run(folder, 'train.py', '--work-dir', 'work', *data)
        return folder, done.stdout + done.stderr

    return train_once


@pytest.fixture(scope='module', params=['mmdet', 'mmseg', 'mmpretrain'])
def trained(request, train):
    """A finished training of each library: (library, folder, what was printed)."""
    return request.param, *train(request.param)


@pytest.fixture
def detection(tmp_path):
    write_project(tmp_path, 'mmdet')
    return tmp_path


@pytest.mark.slow
def test_training_evaluates_each_epoch_and_saves(trained):
    library, folder, output = trained
    epochs = 3 if library == 'mmdet' else 2
    records = scalars(folder / 'work')
    losses = [r['loss'] for r in records if 'loss' in r]
    assert len(losses) == epochs * 2
    assert all(0 < loss < 100 for loss in losses)
    for score in SCORES[library]:
        assert sum(score in r for r in records) == epochs
    assert (folder / f'work/epoch_{epochs}.pth').is_file()
    said = 'No GPU was found: SyncBN is replaced by BN'
    expected = 0 if library == 'mmpretrain' or torch.cuda.is_available() else 1
    assert output.count(said) == expected


@pytest.mark.slow
def test_training_shows_a_screen_losses_and_scores_and_logs_the_rest(trained):
    library, folder, output = trained
    epochs = 3 if library == 'mmdet' else 2
    lines = output.splitlines()
    known = (
        *('--data: ', 'training: ', 'model: ', 'device: ', 'step: ', 'rate: '),
        *('schedule: ', 'evaluation: ', 'weights: ', 'results: ', 'log: '),
        *('Epoch(train) ', 'epoch '),
        *('classes:', '  ', 'report: '),
        *('best ', 'last checkpoint: ', 'scores: ', 'next: '),
    )
    assert [line for line in lines if not line.startswith(known)] == []
    kind = dict(mmdet='MaskRCNN', mmseg='EncoderDecoder', mmpretrain='ImageClassifier')
    assert f'model:       {kind[library]} on RAVLT, 0.0' in output
    assert f'schedule:    {epochs} epochs of 2 steps' in output
    for name in ('per_class.csv', 'samples.png'):
        assert f'report: work/{name}' in lines
        assert (folder / 'work' / name).is_file()
    records = scalars(folder / 'work')
    losses = [line for line in lines if line.startswith('Epoch(train) [')]
    for line, record in zip(losses, [r for r in records if 'loss' in r], strict=True):
        epoch, before = divmod(record['step'] - 1, 2)
        assert line.startswith(f'Epoch(train) [{epoch + 1}][{before + 1}/2]  0:00:')
        assert ' left  loss: ' in line
        for name in [name for name in record if 'loss' in name]:
            assert f'  {name}: {record[name]:.4f}' in line
    told = [line for line in lines if f'  {SCORES[library][0]}: ' in line]
    evaluated = [r for r in records if SCORES[library][0] in r]
    for line, record in zip(told, evaluated, strict=True):
        assert line.startswith(f'epoch {record["step"]}/{epochs}  ')
        for score in SCORES[library]:
            assert f'  {score}: {record[score]:.4f}' in line
    assert told[0].endswith('(best so far)')
    (log,) = (folder / 'work').glob('*/*.log')
    assert f'log:         {log.relative_to(folder)}\n' in output
    table = dict(mmdet='Evaluate annotation type *bbox*', mmseg='per class results')
    for said in ('System environment', 'Config:\n', table.get(library, 'Epoch(val)')):
        assert said in log.read_text()


@pytest.mark.slow
def test_test_repeats_the_score_draws_and_dumps(trained):
    library, folder, _ = trained
    epochs = 3 if library == 'mmdet' else 2
    data = ['--data', 'data'] if library == 'mmdet' else []
    done = run(
        folder,
        'test.py',
        f'work/epoch_{epochs}.pth',
        *('--work-dir', 'tested', '--show-dir', 'drawn', '--out', 'predictions.pkl'),
        *data,
    )
    assert 'do not match exactly' not in done.stdout + done.stderr
    (metrics,) = (folder / 'tested').glob('*/*.json')
    tested = json.loads(metrics.read_text())
    last = [r for r in scalars(folder / 'work') if SCORES[library][0] in r][-1]
    assert 'log:         tested/' in done.stdout
    for score in SCORES[library]:
        assert f'  {score}: {tested[score]:.4f}' in done.stdout
        assert tested[score] == pytest.approx(last[score], abs=1e-3)
    images = 2 if library == 'mmdet' else 4
    drawn = [p for p in (folder / 'drawn').rglob('*') if p.suffix in ('.png', '.jpg')]
    assert len(drawn) == images
    predictions = pickle.loads((folder / 'predictions.pkl').read_bytes())
    assert len(predictions) == images
    kind = dict(mmdet='pred_instances', mmseg='pred_sem_seg', mmpretrain='pred_label')
    assert all(kind[library] in prediction for prediction in predictions)
    assert not any('seg_logits' in prediction for prediction in predictions)


@pytest.mark.slow
def test_training_killed_in_the_middle_resumes_to_the_same_number_of_epochs(detection):
    words = ('config.py', '--data', 'data', '--work-dir', 'work')
    process = start_tool('train.py', *words, cwd=detection)
    deadline = time.monotonic() + 120
    while not (detection / 'work/last_checkpoint').is_file():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    saved = Path((detection / 'work/last_checkpoint').read_text().strip()).name
    assert saved in ('epoch_1.pth', 'epoch_2.pth')
    killed_after = int(saved[len('epoch_')])

    done = run(
        detection, 'train.py', '--data', 'data', '--work-dir', 'work', '--resume'
    )
    assert f'3 epochs of 2 steps, epoch {killed_after} is done' in done.stdout
    (newest,) = sorted((detection / 'work').glob('*/vis_data/scalars.json'))[-1:]
    records = [json.loads(line) for line in newest.read_text().splitlines()]
    assert [r['epoch'] for r in records if 'loss' in r] == [
        epoch for epoch in range(killed_after + 1, 4) for _ in range(2)
    ]
    state = torch.load(detection / 'work/epoch_3.pth', weights_only=False)
    assert state['meta']['epoch'] == 3
    assert state['meta']['iter'] == 6
    steps = {s['step'].item() for s in state['optimizer']['state'].values()}
    assert steps == {6}


@pytest.fixture(scope='module')
def detector(train):
    """A finished training on own data: the folder."""
    return train('mmdet')[0]


@pytest.mark.slow
def test_resume_takes_a_path_and_more_epochs(detector):
    options = ['--cfg-options', 'train_cfg.max_epochs=4', 'param_scheduler.1.end=4']
    run(
        detector,
        'train.py',
        *('--data', 'data', '--work-dir', 'longer', '--resume', 'work/epoch_3.pth'),
        *options,
    )
    epochs = [r['epoch'] for r in scalars(detector / 'longer') if 'loss' in r]
    assert epochs == [4, 4]


@pytest.mark.slow
def test_amp_and_auto_scale_lr_are_applied(detection):
    done = run(
        detection,
        'train.py',
        *('--data', 'data', '--work-dir', 'work', '--amp', '--auto-scale-lr'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
    )
    assert 'rate:        1.25e-05, by AdamW' in done.stdout  # 1e-4 for 16 images
    if not torch.cuda.is_available():
        assert 'fp16 is replaced by float32' in done.stdout + done.stderr


@pytest.mark.slow
def test_testing_warns_about_other_class_names(detector):
    data = detector / 'renamed'
    shutil.copytree(detector / 'data', data)
    for file in (data / 'annotations').glob('*.json'):
        file.write_text(file.read_text().replace('"circle"', '"disc"'))
    done = run(detector, 'test.py', 'work/epoch_3.pth', '--data', data)
    assert "was 'circle' in training and is 'disc' here" in done.stdout + done.stderr
    done = run(detector, 'test.py', 'work/epoch_3.pth', '--data', 'data', '--amp')
    assert 'in training and is' not in done.stdout + done.stderr


@pytest.mark.slow
def test_resuming_from_weights_alone_is_refused(detector):
    state = torch.load(detector / 'work/epoch_3.pth', weights_only=False)
    torch.save({'state_dict': state['state_dict']}, detector / 'weights.pth')
    done = run(
        detector, 'train.py', '--data', 'data', '--resume', 'weights.pth', check=False
    )
    assert done.returncode == 1
    assert 'error: weights.pth holds no state of a training' in done.stderr


@pytest.mark.slow
def test_checkpoint_of_own_data_knows_its_classes(detector):
    state = torch.load(detector / 'work/epoch_3.pth', weights_only=False)
    assert len(state['meta']['dataset_meta']['classes']) == NUM_CLASSES
    weight = state['state_dict']['roi_head.bbox_head.fc_cls.weight']
    assert weight.shape[0] == NUM_CLASSES + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    'option,message',
    [
        ('model.roi_head.bbox_head.num_classes=7', 'roi_head.bbox_head.fc_cls (2)'),
        ('model.backbone.arch=t', 'but this model is RAVLT-T'),
    ],
)
def test_testing_refuses_weights_that_do_not_fit(option, message, detector):
    done = run(
        detector,
        'test.py',
        *('work/epoch_3.pth', '--data', 'data', '--work-dir', 'refused'),
        *('--cfg-options', option),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'tool,arguments,message',
    [
        ('train.py', ['--data', 'nowhere'], 'error: --data nowhere: there is no such'),
        (
            'test.py',
            ['x.pth', '--data', '.'],
            'is in none of the layouts that are known',
        ),
        ('train.py', [], 'put it there, or give a folder of your own with --data'),
        ('test.py', ['x.pth'], "No such file or directory: 'data/coco/annotations"),
        ('train.py', ['--resume', 'x.pth'], 'error: x.pth can not be found'),
        ('test.py', ['x.pth', '--out', 'x.json'], 'x.json: the file name must end in'),
    ],
)
def test_wrong_input_ends_with_one_sentence_and_no_traceback(
    tool, arguments, message, detection
):
    done = run(detection, tool, *arguments, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_missing_config_is_named(tmp_path):
    done = run(tmp_path, 'train.py', check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == 'error: there is no config file config.py'
