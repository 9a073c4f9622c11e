"""`--resume` finds the right file, and refuses what a training cannot go on from."""

import os

import pytest
import torch
from mmengine.config import Config

from mmravlt.checkpoint import CheckpointError
from mmravlt.resuming import check_resumable, newest_checkpoint

CFG = Config(
    dict(
        train_dataloader=dict(dataset=dict(metainfo=dict(classes=('a', 'b')))),
        param_scheduler=[dict(type='MultiStepLR', milestones=[8, 11])],
    )
)


def state(model, classes=('a', 'b')):
    return dict(
        meta=dict(iter=3, epoch=1, dataset_meta=dict(classes=classes)),
        state_dict=model.state_dict(),
        optimizer={},
        param_schedulers=[],
        message_hub={},
    )


@pytest.fixture
def work_dir(tmp_path):
    """A training's folder after three epochs."""
    for epoch in (1, 2, 3):
        file = tmp_path / f'epoch_{epoch}.pth'
        torch.save(state(torch.nn.Linear(2, 2)), file)
        os.utime(file, (epoch, epoch))
    torch.save(state(torch.nn.Linear(2, 2)), tmp_path / 'best_accuracy_epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def test_the_last_checkpoint_is_taken(work_dir):
    path, why = newest_checkpoint(work_dir)
    assert path == work_dir / 'epoch_3.pth'
    assert str(path) in why


@pytest.mark.parametrize(
    'change,chosen,reason',
    [
        (lambda d: (d / 'last_checkpoint').unlink(), 'epoch_3.pth', 'names none'),
        (lambda d: (d / 'last_checkpoint').write_text(''), 'epoch_3.pth', 'names none'),
        (
            lambda d: (d / 'last_checkpoint').write_bytes(b'\xff\xfe'),
            *('epoch_3.pth', 'names none'),
        ),
        (lambda d: cut(d / 'epoch_3.pth'), 'epoch_2.pth', 'is damaged'),
        (lambda d: (d / 'epoch_3.pth').unlink(), 'epoch_2.pth', 'which is not in'),
        (
            lambda d: (d / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth'),
            *('epoch_2.pth', 'goes on from'),
        ),
        (
            lambda d: (d / 'last_checkpoint').write_text('/elsewhere/iter_9.pth'),
            *('epoch_3.pth', 'names /elsewhere/iter_9.pth, which is not in'),
        ),
    ],
)
def test_the_newest_whole_file_is_taken_and_the_reason_said(
    change, chosen, reason, work_dir
):
    change(work_dir)
    path, why = newest_checkpoint(work_dir)
    assert path == work_dir / chosen
    assert reason in why


def test_a_folder_that_was_copied_goes_on_from_its_own_files(work_dir, tmp_path):
    copy = tmp_path / 'copy'
    copy.mkdir()
    for name in ('epoch_3.pth', 'last_checkpoint'):
        (copy / name).write_bytes((work_dir / name).read_bytes())
    assert newest_checkpoint(copy)[0] == copy / 'epoch_3.pth'


def test_a_folder_without_a_checkpoint_starts_anew(tmp_path):
    assert newest_checkpoint(tmp_path)[0] is None
    path, why = newest_checkpoint(tmp_path / 'nowhere')
    assert path is None and 'starts anew' in why


def test_a_whole_state_of_the_same_model_is_resumable(tmp_path):
    model = torch.nn.Linear(2, 2)
    torch.save(state(model), tmp_path / 'x.pth')
    check_resumable(str(tmp_path / 'x.pth'), CFG, model)


def test_a_training_without_schedules_goes_on(tmp_path):
    model = torch.nn.Linear(2, 2)
    content = state(model)
    del content['param_schedulers']
    torch.save(content, tmp_path / 'x.pth')
    check_resumable(
        str(tmp_path / 'x.pth'), Config({**CFG, 'param_scheduler': None}), model
    )


def test_a_model_that_is_built_later_is_not_compared(tmp_path):
    torch.save(state(torch.nn.Linear(2, 2)), tmp_path / 'x.pth')
    check_resumable(str(tmp_path / 'x.pth'), CFG, dict(type='SomeModel'))


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda s: s.pop('meta'), 'holds no state of a training'),
        (lambda s: s['meta'].pop('iter'), 'holds no state of a training'),
        (lambda s: s.pop('message_hub'), r'it has no message_hub'),
        (lambda s: s.pop('optimizer'), r'it has no optimizer'),
        (lambda s: s.pop('param_schedulers'), r'it has no param_schedulers'),
        (lambda s: s.pop('state_dict'), r'it has no state_dict'),
        (
            lambda s: s['meta'].update(dataset_meta=dict(classes=('a', 'b', 'c'))),
            'on the 3 classes a, b, c, but the data has 2: a, b; .*load_from=',
        ),
        (
            lambda s: s['state_dict'].update(weight=torch.ones(3, 2)),
            r'weight has the shape \(3, 2\) there, but has the shape \(2, 2\) here',
        ),
        (lambda s: s['state_dict'].pop('bias'), 'bias is missing there'),
    ],
)
def test_what_is_no_state_of_this_training_is_refused(change, message, tmp_path):
    model = torch.nn.Linear(2, 2)
    content = state(model)
    change(content)
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message) as raised:
        check_resumable(str(tmp_path / 'x.pth'), CFG, model)
    assert 'load_from=' in str(raised.value)
