"""Progress and scores of a run, as people see them on the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from numbers import Integral, Real
from typing import TYPE_CHECKING

from mmengine.hooks import Hook, LoggerHook

if TYPE_CHECKING:
    from mmengine.runner import Runner

    from ..commands.console import Console
    from .results import ResultsHook

REFRESH = 0.1  # seconds between two states of the bar
SIGN_OF_LIFE = 30  # seconds between two lines of an evaluation, without a terminal
NO_LOSSES = ('momentum', 'time', 'data_time')  # and learning rates


class ConsoleHook(Hook):
    """Shows a screen before the first step, then progress, losses and scores.

    On a terminal a bar has the state of the run. Elsewhere there is a line wherever
    MMEngine's logger writes one. Each evaluation leaves a line with its scores.

    Args:
        console (Console): where all this is shown.
        screen (Callable): ``(runner)`` gives the lines before the first step.
        results (ResultsHook | None): of a training, to tell which score is the best.
    """

    priority = 'LOWEST'  # all that is shown is there

    def __init__(
        self,
        console: Console,
        screen: Callable[[Runner], list[str]],
        results: ResultsHook | None = None,
    ) -> None:
        self.console = console
        self.screen = screen
        self.results = results
        self._bar = None
        self._tasks: dict[str, int] = {}
        self._shown = 0.0  # when the bar was drawn, or the last line printed

    def before_train(self, runner: Runner) -> None:
        """Show the screen."""
        self._begin(runner)

    def before_test(self, runner: Runner) -> None:
        """Show the screen."""
        self._begin(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Show how far the training is, and its losses."""
        done, total = runner.iter + 1, runner.max_iters
        where = f'{_place(runner, runner.epoch + 1)}  '
        if not _counts_epochs(runner):
            where = ''
        losses = None
        if self._is_logged(runner, batch_idx):
            losses = _losses(runner)
        if self._bar is not None:
            self._advance('train', where, done, total, _left(runner), losses)
        elif losses is not None:
            # as MMEngine begins its lines, which programs may look for
            where = f'Iter(train) [{done}/{total}]'
            if _counts_epochs(runner):
                place = f'[{batch_idx + 1}/{len(runner.train_dataloader)}]'
                where = f'Epoch(train) [{runner.epoch + 1}]{place}'
            self.console.say('  '.join(filter(None, [where, _left(runner), losses])))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Show how far the evaluation is."""
        self._evaluate(runner, batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Show how far the test is."""
        self._evaluate(runner, batch_idx + 1, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Show the scores."""
        words = [_place(runner, runner.epoch), _scores(runner, metrics)]
        best = self.results.best if self.results else None
        if best is not None and best is self.results.rows[-1]:
            words.append('(best so far)')
        self._say_scores(words)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Show the scores."""
        self._say_scores(['test', _scores(runner, metrics)])

    def after_train(self, runner: Runner) -> None:
        """Say why a training ends before its time."""
        if getattr(runner.train_loop, 'stop_training', False):
            place = _place(runner, runner.epoch)
            self.console.say(f'{place}  ended early: the score did not improve')

    def after_run(self, runner: Runner) -> None:
        """Take the bar away."""
        self.console.close_bar()

    def _begin(self, runner: Runner) -> None:
        self.console.say(*self.screen(runner))
        if self.console.is_terminal:
            self._bar = self.console.bar = _new_bar(self.console.stream)
            with suppress(OSError):
                self._bar.start()

    def _is_logged(self, runner: Runner, batch_idx: int) -> bool:
        """Whether MMEngine's logger writes a line about this step."""
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        hook = loggers[0] if loggers else LoggerHook()
        if self.every_n_inner_iters(batch_idx, hook.interval):
            return True
        steps = len(runner.train_dataloader)
        is_whole = not hook.ignore_last or steps <= hook.interval
        return is_whole and self.end_of_epoch(runner.train_dataloader, batch_idx)

    def _evaluate(self, runner: Runner, done: int, total: int) -> None:
        if self._bar is not None:
            self._advance('evaluation', 'evaluation  ', done, total, _left(runner), '')
        elif time.monotonic() - self._shown > SIGN_OF_LIFE:
            words = [f'evaluation {done}/{total}', _left(runner)]
            if self._shown:
                self.console.say('  '.join(filter(None, words)))
            self._shown = time.monotonic()

    def _advance(
        self, kind: str, where: str, done: int, total: int, left: str, text: str | None
    ) -> None:
        """Move the bar of a training, or of an evaluation below it."""
        state = dict(description=where, left=left)
        if text is not None:
            state['text'] = text
        with suppress(OSError):  # of a terminal that was closed
            if kind not in self._tasks:
                state = {'text': '', **state}
                self._tasks[kind] = self._bar.add_task(total=total, **state)
            self._bar.update(self._tasks[kind], completed=done, **state)
            if time.monotonic() - self._shown > REFRESH or done == total:
                self._shown = time.monotonic()
                self._bar.refresh()

    def _say_scores(self, words: list[str]) -> None:
        if 'evaluation' in self._tasks:
            self._bar.remove_task(self._tasks.pop('evaluation'))
        self._shown = 0.0
        self.console.say('  '.join(words))


def _new_bar(stream):
    """A bar of rich, which comes with MMEngine.

    It is drawn when the run asks for it: a thread that draws would be copied, with its
    locks, into the workers of the loaders.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    rest = Column(no_wrap=True, overflow='ellipsis', ratio=1)
    return Progress(
        TextColumn('{task.description}', markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn('{task.fields[left]}', markup=False),
        TextColumn('{task.fields[text]}', markup=False, table_column=rest),
        console=Console(file=stream),
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
        expand=True,
    )


def _counts_epochs(runner: Runner) -> bool:
    return 'Iter' not in type(runner.train_loop).__name__


def _place(runner: Runner, epoch: int) -> str:
    """Where a training is."""
    if _counts_epochs(runner):
        return f'epoch {epoch}/{runner.max_epochs}'
    return f'step {runner.iter}/{runner.max_iters}'


def _left(runner: Runner) -> str:
    """The time until the end, as MMEngine's timer reckons it; else nothing."""
    seconds = runner.message_hub.runtime_info.get('eta')
    return f'{timedelta(seconds=int(seconds))} left' if seconds is not None else ''


def _losses(runner: Runner) -> str:
    """The losses, and what else a head tells of its training, as MMEngine logs them."""
    processor, words = runner.log_processor, []
    for key, history in runner.message_hub.log_scalars.items():
        kind, _, name = key.partition('/')
        if kind != 'train' or name in NO_LOSSES or name.endswith('lr'):
            continue
        is_mean = processor.mean_pattern.search(name)
        value = history.mean(processor.window_size) if is_mean else history.current()
        words.append(f'{name}: {value:.{processor.num_digits}f}')
    return '  '.join(words)


def _scores(runner: Runner, metrics: Mapping | None) -> str:
    digits = runner.log_processor.num_digits
    return '  '.join(
        f'{name}: {value if isinstance(value, Integral) else f"{value:.{digits}f}"}'
        for name, value in (metrics or {}).items()
        if isinstance(value, Real)
    )
