"""A training's work dir has a table and curves of what it has reached."""

import csv
from types import SimpleNamespace

import pytest
from PIL import Image

from mmravlt.openmmlab.results import ResultsHook


class History:
    def __init__(self, values):
        self.values = values

    def mean(self, window):
        last = self.values[-window:]
        return sum(last) / len(last)


def runner(work_dir, iteration, losses=(), epoch=0):
    return SimpleNamespace(
        work_dir=str(work_dir),
        iter=iteration,
        epoch=epoch,
        optim_wrapper=SimpleNamespace(get_lr=lambda: dict(lr=[1e-4, 2e-4])),
        message_hub=SimpleNamespace(
            log_scalars={
                'train/loss': History(list(losses)),
                'train/lr': History([1]),
                'val/loss': History([9]),
            }
        ),
    )


def read(folder):
    with (folder / 'results.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_each_evaluation_adds_a_row_with_the_mean_losses_since_the_last(tmp_path):
    hook = ResultsHook('coco/bbox_mAP')
    hook.before_train(runner(tmp_path, 0))
    hook.after_val_epoch(runner(tmp_path, 2, [4, 2], 1), {'coco/bbox_mAP': 0.25})
    hook.after_val_epoch(
        runner(tmp_path, 4, [4, 2, 1, 0], 2), {'coco/bbox_mAP': 0.5, 'name': 'text'}
    )
    rows = read(tmp_path)
    assert [float(row['loss']) for row in rows] == [3, 0.5]
    assert [row['iteration'] for row in rows] == ['2', '4']
    assert [row['coco/bbox_mAP'] for row in rows] == ['0.25', '0.5']
    assert rows[0]['learning_rate'] == '0.0002'
    assert 'name' not in rows[1]
    assert hook.best['iteration'] == 4
    with Image.open(tmp_path / 'curves.png') as image:
        assert image.width > 3 * image.height


def test_a_resumed_training_goes_on_below_the_rows_it_has_reached(tmp_path):
    first = ResultsHook('mIoU')
    for iteration, score in ((10, 20.0), (20, 30.0), (30, 25.0)):
        first.after_val_epoch(runner(tmp_path, iteration, [1.0]), {'mIoU': score})
    resumed = ResultsHook('mIoU')
    resumed.before_train(runner(tmp_path, 20))
    resumed.after_val_epoch(runner(tmp_path, 30, [1.0]), {'mIoU': 40.0})
    rows = read(tmp_path)
    assert [float(row['iteration']) for row in rows] == [10, 20, 30]
    assert [float(row['mIoU']) for row in rows] == [20, 30, 40]
    assert resumed.best['mIoU'] == 40


def test_a_training_from_the_start_begins_a_new_table(tmp_path):
    ResultsHook('mIoU').after_val_epoch(runner(tmp_path, 10, [1.0]), {'mIoU': 1.0})
    anew = ResultsHook('mIoU')
    anew.before_train(runner(tmp_path, 0))
    anew.after_val_epoch(runner(tmp_path, 5, [1.0]), {'mIoU': 2.0})
    assert len(read(tmp_path)) == 1


def test_a_training_without_a_known_score_has_rows_and_no_best(tmp_path):
    hook = ResultsHook('')
    hook.after_val_epoch(runner(tmp_path, 10, [1.0]), {'mIoU': 1.0})
    assert hook.best is None
    assert read(tmp_path)[0]['mIoU'] == '1.0'
    assert (tmp_path / 'curves.png').exists()


@pytest.mark.parametrize('metrics', [None, {}, {'mIoU': float('nan')}])
def test_an_evaluation_without_the_score_is_kept_too(metrics, tmp_path):
    hook = ResultsHook('mIoU')
    hook.after_val_epoch(runner(tmp_path, 10, [1.0]), metrics)
    assert len(read(tmp_path)) == 1
    assert (tmp_path / 'curves.png').exists()
