"""Tables and pictures of the best evaluation of a training, and of a test."""

from __future__ import annotations

import time
from contextlib import suppress
from numbers import Real
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from .. import tasks
from ..pictures import replace_file
from ..reports.base import Report, ReportError, in_words
from ..tasks.base import Task
from ..tasks.config import bit_depth_of
from .results import ResultsHook

SHARE = 0.05  # of the time of a training that may go into its reports


def reports_of(cfg: Config, results: ResultsHook | None = None) -> list[ReportHook]:
    """The hook for a config; none if its library is not known here."""
    try:
        return [ReportHook(tasks.of(cfg), results)]
    except tasks.TaskError:
        return []


class ReportHook(Hook):
    """Writes ``per_class.csv``, ``samples.png`` and others into the work dir.

    After each evaluation of a training that is the best so far, and after a test. Once
    that has taken more than :data:`SHARE` of the time of a training, the rest waits for
    a later evaluation or the end. What cannot be drawn is told and left out.

    Args:
        task (Task): of the config.
        results (ResultsHook | None): which knows the best evaluation of a training; it
            is to be registered first.

    Attributes:
        paths (list[Path]): the files of the last report.
    """

    priority = 'VERY_LOW'  # the row of the evaluation is there

    def __init__(self, task: Task, results: ResultsHook | None = None) -> None:
        self.task, self.results = task, results
        self.report: Report | None = None
        self.waiting: tuple[list, str] | None = None
        self.told: set[str] = set()
        self.paths: list[Path] = []
        self.start, self.seconds = time.monotonic(), 0.0

    @property
    def lines(self) -> list[str]:
        """The classes and files of the last report for people; none without one."""
        text = self.report.text() if self.report else ''
        shown = ['classes:', *(f'  {line}' for line in text.splitlines())]
        files = [f'report: {path}' for path in self.paths]
        return [*(shown if text else []), *files]

    def before_train(self, runner) -> None:
        """Measure time from here."""
        self.start = time.monotonic()

    def before_val(self, runner) -> None:
        """Let the evaluation collect what is needed."""
        self._attach(runner, runner.val_evaluator, runner.val_dataloader.dataset)

    def before_test(self, runner) -> None:
        """Let the test collect what is needed."""
        self._attach(runner, runner.test_evaluator, runner.test_dataloader.dataset)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Report on the best evaluation so far, or on any if there is no score."""
        if not self._has_found():
            return
        best = self.results.best if self.results else None
        if best and best['iteration'] != runner.iter:
            return
        title = f'validation at iteration {runner.iter}'
        if self.results:
            title += _words(metrics, self.results.score)
        self.waiting = self.report.found, title
        if self.seconds <= SHARE * (time.monotonic() - self.start):
            self._write(runner)

    def after_train(self, runner) -> None:
        """Report on what still waits."""
        self._write(runner)

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Report on the test."""
        if self._has_found():
            title = 'test' + _words(metrics, self.task.score(runner.cfg))
            self.waiting = self.report.found, title
            self._write(runner)

    def _has_found(self) -> bool:
        return self.report is not None and self.report.found is not None

    def _attach(self, runner, evaluator: Evaluator, dataset) -> None:
        if self.report in evaluator.metrics:
            self.report.found = None
            return
        self.report = None
        try:
            if type(evaluator) is not Evaluator:  # such as one of several datasets
                raise ReportError(f'the evaluator is a {type(evaluator).__name__}')
            kind = self.task.report()
            bit_depth = bit_depth_of(runner.cfg) or 16
            self.report = kind(dataset, evaluator.metrics, bit_depth)
        except Exception as error:  # of whatever kind; it is no reason to stop
            self._tell(runner, 'tables and pictures', in_words(error))
            return
        evaluator.metrics.append(self.report)

    def _write(self, runner) -> None:
        """Write all files, of which none remains of an earlier evaluation."""
        if not self.waiting:
            return
        found, title = self.waiting
        self.waiting, self.paths = None, []
        start = time.monotonic()
        failed: dict[str, list[str]] = {}
        try:
            files = self.report.files(found, title)
        except Exception as error:
            self._tell(runner, 'tables and pictures', in_words(error))
            files = {}
        for name, make in files.items():
            path = Path(runner.work_dir, name)
            try:
                replace_file(path, make())
            except Exception as error:  # of an image, of a disk that is full, any
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                failed.setdefault(in_words(error), []).append(name)
            else:
                # as people gave it; the runner made an absolute one of it
                self.paths.append(Path(runner.cfg.get('work_dir', ''), name))
        for reason, names in failed.items():
            self._tell(runner, ', '.join(names), reason)
        self.seconds += time.monotonic() - start

    def _tell(self, runner, what: str, reason: str) -> None:
        """Warn once of what will be missing."""
        text = f'Without {what} of the evaluation: {reason}'
        if text not in self.told:
            self.told.add(text)
            runner.logger.warning(text)


def _words(metrics: dict | None, score: str) -> str:
    value = (metrics or {}).get(score)
    return f', {score} {value:.4g}' if isinstance(value, Real) else ''
