"""Evaluate a checkpoint with any of the three libraries; the config decides which."""

from __future__ import annotations

import argparse
import copy
import os
import re

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .. import tasks
from ..command_line import (
    build_runner,
    exit_on,
    exit_on_missing_files,
    optimized,
    read_run_config,
)
from ..openmmlab.console import ConsoleHook
from ..openmmlab.device import adapt_to_device, leave_gloo
from ..openmmlab.reporting import reports_of
from ..openmmlab.weight_remapping import needs_all_weights
from ..tasks.config import bit_depth_of
from .console import Console, say
from .screen import downloads, evaluation_screen


def run(args: argparse.Namespace, console: Console | None) -> None:
    """Evaluate as the command line says.

    Args:
        args (Namespace): of :func:`mmravlt.commands.arguments.parse_test`.
        console (Console | None): where people read; None leaves all to MMEngine.
    """
    cfg = read_run_config(args, training=False)
    cfg.load_from = args.checkpoint
    # Or mmseg would open the training data to draw predictions.
    cfg.train_dataloader = cfg.train_cfg = None
    cfg.optim_wrapper = cfg.param_scheduler = None
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    notes: list[str] = []
    adapt_to_device(cfg, notes.append)
    if args.optimize:
        notes.append('The backbone is optimised for inference.')
    say(*downloads(cfg))
    reports = reports_of(cfg)
    hooks: list[Hook] = [CompareClasses(), CompareBitDepth(), *reports]
    if args.optimize:
        hooks.append(Optimize())
    if console:

        def screen(runner) -> list[str]:
            return evaluation_screen(runner, cfg, args.checkpoint, notes)

        hooks.append(ConsoleHook(console, screen))
    else:
        say(*notes)
    with exit_on_missing_files(), needs_all_weights():
        runner = build_runner(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        if args.out:
            with exit_on(tasks.TaskError):
                dump_metric = tasks.of(cfg).dump_metric()
            runner.test_evaluator.metrics.append(dump_metric(out_file_path=args.out))
        runner.test()
    for report in reports:
        say(*report.lines)
    places = {'predictions': args.out, 'drawings': args.show_dir}
    say(*(f'{name}: {place}' for name, place in places.items() if place))
    leave_gloo()


def draw_predictions(cfg: Config, folder: str) -> None:
    """Turn on the library's own visualisation hook, which writes to ``folder``."""
    if not cfg.get('default_hooks', {}).get('visualization'):
        raise SystemExit('error: --show-dir needs default_hooks.visualization')
    with exit_on(tasks.TaskError):
        tasks.of(cfg).draw_tests(cfg, os.path.abspath(folder))


class CompareClasses(Hook):
    """Warns where the classes of the checkpoint and of the data have other names."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        stored = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        trained = stored.get('classes') or ()
        tested = runner.test_dataloader.dataset.metainfo.get('classes') or ()
        for i, (then, now) in enumerate(zip(trained, tested, strict=False)):
            if then != now:
                runner.logger.warning(
                    f'class {i} was {then!r} in training and is {now!r} here, so the '
                    'scores mean nothing unless only names have changed'
                )
                break


class CompareBitDepth(Hook):
    """Warns where the model was trained on images that were scaled in another way."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        text = (checkpoint.get('meta') or {}).get('cfg')
        if not isinstance(text, str):  # of weights alone
            return
        # the text is not run as a config: a stranger may have written it
        found = re.search(r'bit_depth=(\d+)[^()]*ScaleBitDepth', text)
        then, now = int(found[1]) if found else 16, bit_depth_of(runner.cfg) or 16
        if then != now:
            runner.logger.warning(
                f'images of more than 8 bits per value were read as {then} bits in '
                f'training and are read as {now} here, so they look different; give '
                f'--bit-depth {then}'
            )


class Optimize(Hook):
    """Tests an optimised copy of the model.

    A copy, because after the test the EMA hook exchanges the weights of the model
    that it knows, one by one. The hook comes last, once they are the averaged ones.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner: Runner) -> None:
        model = runner.model
        while is_model_wrapper(model):  # which may hold what cannot be copied
            model = model.module
        runner.model = optimized(copy.deepcopy(model))
        runner.logger.info('The backbone is optimised for inference')
