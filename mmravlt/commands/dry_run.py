"""One step of a training and of its evaluation, to see what the whole would be like."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..checkpoint import load_file
from ..command_line import build_runner
from ..resuming import check_resumable
from .screen import align


class _Done(Exception):  # noqa: N818  (it is no error)
    """All that was to be tried was tried."""


class Trial(Hook):
    """Runs the first step of a training once more, and one of evaluation; then ends it.

    Attributes:
        step (float): seconds of a step that is not the first one; where no workers
            load the data, with the time that loading takes.
        evaluation (float | None): seconds of a step of evaluation; None if the training
            is not evaluated.
        scoring (float): seconds that the scores take, with predictions of one step.
    """

    priority = 'LOWEST'
    step = 0.0
    evaluation: float | None = None
    scoring = 0.0

    def before_train_epoch(self, runner: Runner) -> None:
        """Start to measure how long the data takes."""
        self._start = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch) -> None:
        """Keep the batch as it is."""
        self._loading = time.perf_counter() - self._start
        self._batch = copy.deepcopy(data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Measure both steps."""
        start = _now()
        runner.model.train_step(self._batch, optim_wrapper=runner.optim_wrapper)
        self.step = _now() - start
        if not runner.train_dataloader.num_workers:
            self.step += self._loading
        if runner.val_loop is not None:
            loop = runner.val_loop
            runner.model.eval()
            batch = next(iter(loop.dataloader))
            with torch.no_grad():  # what is done the first time alone does not count
                runner.model.val_step(copy.deepcopy(batch))
            start = _now()
            loop.run_iter(0, batch)
            self.evaluation = _now() - start
            loop.evaluator.evaluate(len(loop.dataloader.dataset))
            self.scoring = _now() - start - self.evaluation
        raise _Done


def dry_run(
    cfg: Config, checkpoint: str | None, screen: Callable[[Runner], list[str]]
) -> list[str]:
    """Try a training without writing anything into its work dir.

    Args:
        cfg (Config): of the training.
        checkpoint (str | None): that it would go on from.
        screen (Callable): ``(runner)`` gives the lines before the first step.

    Returns:
        list[str]: what would happen, a line each.
    """
    trial, tried = Trial(), copy.deepcopy(cfg)
    if checkpoint:
        tried.resume, tried.load_from = False, None
    if tried.get('visualizer'):
        tried.visualizer.vis_backends = []  # or a run would begin at wandb
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tried.work_dir = folder
        runner = build_runner(tried)
        runner.register_hook(trial)
        done = 0
        if checkpoint:
            check_resumable(checkpoint, cfg, runner.model)
            if Path(checkpoint).is_file():  # it may be an address
                done = load_file(checkpoint)['meta']['iter']
        with suppress(_Done):
            runner.train()
        lines = screen(runner) + align(_outlook(runner, trial, done))
        for handler in runner.logger.handlers:
            handler.close()
    return lines


def _outlook(runner: Runner, trial: Trial, done: int) -> list[tuple[str, str]]:
    steps = max(runner.max_iters - done, 0)
    words = f'{trial.step:.3f} s each'
    seconds = steps * trial.step
    rows = [('steps', f'{steps} of {words}' if not done else f'{steps} left, {words}')]
    if trial.evaluation is not None:
        loop, batches = runner.train_loop, len(runner.val_dataloader)
        length = runner.max_iters / loop.val_interval
        if 'Iter' not in type(loop).__name__:
            length = runner.max_epochs / loop.val_interval
        times = max(round(length * steps / runner.max_iters), 1)
        seconds += times * (batches * trial.evaluation + trial.scoring)
        words = f'{times} of {batches} steps, {trial.evaluation:.3f} s each'
        rows.append(('evaluations', f'{words}, and {trial.scoring:.3f} s for scores'))
    rows.append(('time', f'about {timedelta(seconds=round(seconds))} in all'))
    rows.append(('memory', _memory()))
    rows.append(('', 'This was a dry run: nothing was written.'))
    return rows


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _memory() -> str:
    """The most memory that was in use."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f'{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of the GPU'
    if sys.platform == 'win32':
        return ''
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f'{used / 2**30:.2f} GiB of this process'
