"""`--dry-run` says what a training would do and leaves nothing behind."""

import re

import pytest
import torch

from .processes import run_tool
from .tiny import PANOPTIC, write_panoptic_shapes, write_project

ITERATIONS = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=40,
                 val_interval=10)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10))
"""


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def try_out(folder, *words, config='config.py'):
    before = files(folder)
    done = run_tool('train.py', config, '--dry-run', *words, cwd=folder)
    assert files(folder) == before
    assert 'This was a dry run: nothing was written.' in done.stdout
    assert re.search(r'^time:        about \d', done.stdout, re.M)
    assert re.search(r'^memory:      \d+\.\d\d GiB of th', done.stdout, re.M)
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    'library,steps,evaluations',
    [
        ('mmdet', '6 of ', '3 of 2 steps'),
        ('mmseg', '4 of ', '2 of 4 steps'),
        ('mmpretrain', '4 of ', '2 of 2 steps'),
    ],
)
def test_epochs_of_each_library_are_tried(library, steps, evaluations, tmp_path):
    write_project(tmp_path, library)
    data = ['--data', 'data'] if library == 'mmdet' else []
    said = try_out(tmp_path, *data, '--work-dir', 'mine')
    assert re.search(rf'^steps:       {steps}\d+\.\d\d\d s each$', said, re.M)
    times = r'\d+\.\d\d\d s each, and \d+\.\d\d\d s for scores'
    assert re.search(rf'^evaluations: {evaluations}, {times}$', said, re.M)
    assert 'results:     mine\n' in said


@pytest.mark.slow
def test_iterations_are_tried_too(tmp_path):
    write_project(tmp_path, 'mmseg')
    text = (tmp_path / 'config.py').read_text()
    (tmp_path / 'base.py').write_text(text)
    (tmp_path / 'config.py').write_text("_base_ = 'base.py'\n" + ITERATIONS)
    said = try_out(tmp_path)
    assert 'schedule:    40 steps' in said
    assert 'steps:       40 of ' in said
    assert 'evaluations: 4 of 4 steps' in said
    assert 'results:     work_dirs/config\n' in said


@pytest.mark.slow
def test_a_panoptic_model_is_tried(tmp_path):
    (tmp_path / 'config.py').write_text(PANOPTIC)
    write_panoptic_shapes(tmp_path / 'data')
    assert 'evaluations: 3 of 2 steps' in try_out(tmp_path, '--data', 'data')


@pytest.mark.slow
def test_what_is_left_of_a_training_is_said(tmp_path):
    write_project(tmp_path, 'mmdet')
    words = ('--data', 'data', '--work-dir', 'w')
    run_tool('train.py', 'config.py', *words, '--epochs', '1', cwd=tmp_path)
    said = try_out(tmp_path, *words, '--resume')
    assert '--resume: the training goes on from w/epoch_1.pth' in said
    assert 'weights:     w/epoch_1.pth, from which the training goes on' in said
    assert 'steps:       4 left, ' in said
    torch.save({'state_dict': {}}, tmp_path / 'weights.pth')
    words = ('--dry-run', '--data', 'data', '--resume', 'weights.pth')
    done = run_tool('train.py', 'config.py', *words, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert 'error: weights.pth holds no state of a training' in done.stderr
