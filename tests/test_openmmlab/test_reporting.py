"""The best evaluation of a training is reported, and nothing there ends it."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.evaluator import BaseMetric, Evaluator

from mmravlt.openmmlab import reporting
from mmravlt.openmmlab.reporting import ReportHook
from mmravlt.reports.base import Report

from ..processes import ROOT, run_python

DATASET = SimpleNamespace(metainfo=dict(classes=('ant', 'bee')))


class Words(Report):
    """Reports the words that it is given."""

    score = 'F1'

    def keep(self, sample, position):
        if sample['word'] == 'bad':
            raise ValueError('a bad word\nand more')
        return sample['word']

    def make(self, found, title):
        def words():
            if 'drawn' in found:
                raise FileNotFoundError('no image')
            self.rows = [{'class': word, 'F1': 1.0} for word in found]
            return ' '.join(found).encode()

        return {'words.txt': words, 'title.txt': title.encode}


def hook_for(results=None, kind=Words):
    task = SimpleNamespace(report=lambda: kind, score=lambda cfg: 'score')
    return ReportHook(task, results)


@pytest.fixture
def runner(tmp_path):
    loader = SimpleNamespace(dataset=DATASET)
    evaluator = Evaluator([])
    return SimpleNamespace(
        cfg={},
        work_dir=str(tmp_path),
        logger=logging.getLogger('reporting'),
        iter=0,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        val_dataloader=loader,
        test_dataloader=loader,
    )


def evaluate(hook, runner, words, best=None):
    """Go through a validation; ``best`` says whether it is the best so far."""
    runner.iter += 10
    if hook.results and best is not None:
        hook.results.best = dict(iteration=float(runner.iter if best else 10))
    hook.before_val(runner)
    runner.val_evaluator.process([dict(word=word) for word in words])
    scores = runner.val_evaluator.evaluate(len(words))
    assert scores == {}
    hook.after_val_epoch(runner, {'score': 0.5})


def results_hook():
    return SimpleNamespace(best=None, score='score')


@pytest.fixture
def no_limit(monkeypatch):
    monkeypatch.setattr(reporting, 'SHARE', float('inf'))


def text(folder, name='words.txt'):
    return (folder / name).read_text()


def test_files_are_those_of_the_best_evaluation(runner, tmp_path, no_limit):
    hook = hook_for(results_hook())
    evaluate(hook, runner, ['one'], best=True)
    assert text(tmp_path) == 'one'
    evaluate(hook, runner, ['two'], best=True)
    assert text(tmp_path) == 'two'
    evaluate(hook, runner, ['three'], best=False)
    hook.after_train(runner)
    assert text(tmp_path) == 'two'
    assert text(tmp_path, 'title.txt') == 'validation at iteration 20, score 0.5'
    assert hook.lines[2].split() == ['two', '1.0']
    assert sorted(hook.lines[3:]) == ['report: title.txt', 'report: words.txt']
    assert len(runner.val_evaluator.metrics) == 1
    assert {path.name for path in tmp_path.iterdir()} == {'words.txt', 'title.txt'}


def test_without_a_score_files_are_those_of_the_last(runner, tmp_path, no_limit):
    hook = hook_for(results_hook())
    evaluate(hook, runner, ['one'])
    evaluate(hook, runner, ['two'])
    assert text(tmp_path) == 'two'


def test_what_takes_long_waits_for_the_end(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, 'SHARE', 0)
    hook = hook_for(results_hook())
    hook.before_train(runner)
    for word, best in (('one', True), ('two', True), ('three', False)):
        evaluate(hook, runner, [word], best)
        assert text(tmp_path) == 'one'  # the first is never late
    hook.after_train(runner)
    assert text(tmp_path) == 'two'


def test_a_test_is_reported(runner, tmp_path):
    hook = hook_for()
    hook.before_test(runner)
    runner.test_evaluator.process([dict(word='one'), dict(word='two')])
    runner.test_evaluator.evaluate(2)
    hook.after_test_epoch(runner, {'score': 0.25})
    assert text(tmp_path) == 'one two'
    assert text(tmp_path, 'title.txt') == 'test, score 0.25'


def test_what_a_sampler_gives_twice_counts_once(runner, tmp_path):
    hook = hook_for()
    hook.before_test(runner)
    runner.test_evaluator.process([dict(word=word) for word in ('one', 'two', 'one')])
    runner.test_evaluator.evaluate(2)
    hook.after_test_epoch(runner, {})
    assert text(tmp_path) == 'one two'


def test_other_weights_that_are_evaluated_after_it_change_nothing(runner, tmp_path):
    hook = hook_for()
    hook.before_test(runner)
    for word in ('averaged', 'raw'):
        runner.test_evaluator.process([dict(word=word)])
        runner.test_evaluator.evaluate(1)
    hook.after_test_epoch(runner, {})
    assert text(tmp_path) == 'averaged'


def test_what_cannot_be_kept_is_told_in_one_line(runner, tmp_path, no_limit, caplog):
    hook = hook_for(results_hook())
    evaluate(hook, runner, ['one', 'bad', 'bad'], best=True)
    assert list(tmp_path.iterdir()) == []
    assert [record.getMessage() for record in caplog.records] == [
        'Without tables and pictures of the evaluation: ValueError: a bad word'
    ]
    evaluate(hook, runner, ['good'], best=True)
    assert text(tmp_path) == 'good'


def test_what_cannot_be_made_is_told_and_removed(runner, tmp_path, no_limit, caplog):
    hook = hook_for(results_hook())
    evaluate(hook, runner, ['one'], best=True)
    evaluate(hook, runner, ['drawn'], best=True)
    assert {path.name for path in tmp_path.iterdir()} == {'title.txt'}
    assert [record.getMessage() for record in caplog.records] == [
        'Without words.txt of the evaluation: FileNotFoundError: no image'
    ]


def test_what_cannot_be_written_is_told_and_the_rest_is_there(
    runner, tmp_path, no_limit, caplog
):
    hook = hook_for(results_hook())
    (tmp_path / 'words.txt').mkdir()
    evaluate(hook, runner, ['one'], best=True)
    assert 'Without words.txt of the evaluation: IsADirectoryError' in caplog.text
    assert text(tmp_path, 'title.txt') == 'validation at iteration 10, score 0.5'


class Unwilling(Words):
    def __init__(self, *arguments):
        raise KeyError('classes')


class Several(Evaluator):
    """Evaluates several datasets, with a metric each."""


@pytest.mark.parametrize(
    'kind,evaluator,reason',
    [
        (Unwilling, Evaluator, "KeyError: 'classes'"),
        (Words, Several, 'the evaluator is a Several'),
    ],
)
def test_an_evaluation_of_another_kind_goes_on_without(
    kind, evaluator, reason, runner, tmp_path, caplog
):
    class Length(BaseMetric):
        default_prefix = 'length'

        def process(self, data_batch, data_samples):
            self.results += data_samples

        def compute_metrics(self, results):
            return dict(of=len(results))

    runner.val_evaluator = evaluator([Length()])
    hook = hook_for(results_hook(), kind)
    for _ in range(2):
        hook.before_val(runner)
        runner.val_evaluator.process([dict(word='one')])
        assert runner.val_evaluator.evaluate(1) == {'length/of': 1}
        hook.after_val_epoch(runner, {})
    hook.after_train(runner)
    assert list(tmp_path.iterdir()) == []
    assert hook.lines == []
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f'Without tables and pictures of the evaluation: {reason}']


TWO_PROCESSES = """
import logging, sys
from types import SimpleNamespace
from torch.distributed import get_rank, init_process_group
from mmengine.evaluator import Evaluator
from mmravlt.openmmlab.device import leave_gloo
from tests.test_openmmlab.test_reporting import DATASET, hook_for

init_process_group('gloo')
evaluator = Evaluator([])
loader = SimpleNamespace(dataset=DATASET)
runner = SimpleNamespace(
    cfg={}, work_dir=sys.argv[1], logger=logging.getLogger('reporting'),
    test_evaluator=evaluator, test_dataloader=loader)
hook = hook_for()
hook.before_test(runner)
# as a sampler deals three images out to two processes: the first comes twice
for word in (['one', 'three'], ['two', 'one'])[get_rank()]:
    evaluator.process([dict(word=word)])
evaluator.evaluate(3)
hook.after_test_epoch(runner, {})
leave_gloo()
"""


@pytest.mark.slow
def test_two_processes_report_each_image_once(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(TWO_PROCESSES)
    work = tmp_path / 'work'
    work.mkdir()
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    paths = dict(PYTHONPATH=str(ROOT))
    run_python(*launch, script, work, env=paths, cwd=ROOT)
    assert text(work) == 'one two three'
