"""Train a model of any of the three libraries; the config decides which."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook

from .. import tasks
from ..command_line import (
    build_runner,
    exit_on,
    exit_on_missing_files,
    read_run_config,
    use_chosen_device,
)
from ..data import Prepared
from ..openmmlab.console import ConsoleHook
from ..openmmlab.device import adapt_to_device, leave_gloo
from ..openmmlab.reporting import reports_of
from ..openmmlab.results import CURVES, TABLE, ResultsHook
from ..reports.base import ReportError
from ..reports.preview import draw_preview
from ..resuming import check_resumable, newest_checkpoint
from ..schedules import doubts
from ..training import OptionError, training_options, use_image_size, use_options
from .console import Console, is_first, say
from .dry_run import dry_run
from .screen import downloads, training_screen


def run(args: argparse.Namespace, console: Console | None) -> None:
    """Train as the command line says.

    Args:
        args (Namespace): of :func:`mmravlt.commands.arguments.parse_train`.
        console (Console | None): where people read; None leaves all to MMEngine.
    """
    use_chosen_device(args.device)
    cfg = read_config_of_training(args)
    checkpoint = find_checkpoint(args.resume, cfg.work_dir)
    if checkpoint:
        cfg.resume = True
        cfg.load_from = checkpoint
    notes: list[str] = []
    adapt_to_device(cfg, notes.append)
    score = score_of(cfg)

    def screen(runner) -> list[str]:
        return training_screen(runner, cfg, score, notes)

    with exit_on_missing_files():
        if args.preview:
            say(*preview(cfg, args.preview))
            leave_gloo()
            return
        say(*downloads(cfg))
        if args.dry_run:
            say(*dry_run(cfg, checkpoint, screen))
            leave_gloo()
            return
        results = ResultsHook(score)
        reports = reports_of(cfg, results)
        hooks: list[Hook] = [results, *reports]
        if console:
            hooks.append(ConsoleHook(console, screen, results))
        else:
            say(*notes)
        runner = build_runner(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        if checkpoint:
            check_resumable(checkpoint, cfg, runner.model)
        runner.train()
    for report in reports:
        say(*report.lines)
    say(*closing(Path(cfg.work_dir), Path(args.config), results))
    leave_gloo()


def read_config_of_training(args: argparse.Namespace) -> Config:
    """Read the config, and change it as all options but ``--resume`` say."""
    options = training_options(args)

    def resize(cfg: Config) -> None:
        with exit_on(OptionError):
            use_image_size(cfg, options.image_size)

    def change(cfg: Config, data: Prepared | None) -> None:
        with exit_on(OptionError, tasks.TaskError):
            said = use_options(cfg, options, data)
        say(*(f'training: {line}' for line in (*said, *doubts(cfg, data))))

    cfg = read_run_config(args, training=True, resize=resize, change=change)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(
                f'error: --auto-scale-lr needs auto_scale_lr.base_batch_size, which '
                f'{args.config} does not set'
            )
        cfg.auto_scale_lr.enable = True
    return cfg


def find_checkpoint(resume: str | None, work_dir: str) -> str | None:
    """The file that --resume names, or the newest one of the work dir, if any."""
    if resume != 'auto':
        return resume
    path, why = newest_checkpoint(Path(work_dir))
    say(f'--resume: {why}')
    return str(path) if path else None


def score_of(cfg: Config) -> str:
    """The score to judge a training by; none if its library is not known here."""
    try:
        return tasks.of(cfg).score(cfg)
    except tasks.TaskError:
        return ''


def preview(cfg: Config, count: int) -> list[str]:
    """Draw images of the training, and say where."""
    path = Path(cfg.work_dir) / 'preview.png'
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        with exit_on(ReportError):
            draw_preview(cfg, count, path)
    return [f'preview: {path}']


def closing(work_dir: Path, config: Path, results: ResultsHook) -> list[str]:
    """What a training has reached, where it is, and what may come next."""
    lines = []
    files = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    bests = [path for path in files if path.name.startswith('best_')]
    if results.best:
        row = results.best
        place = f'iteration {row["iteration"]:g}'
        if row['epoch']:  # none where a training counts iterations
            place = f'epoch {row["epoch"]:g}, {place}'
        lines.append(f'best {results.score}: {row[results.score]:g} ({place})')
    lines += [f'best checkpoint: {path}' for path in bests[-1:]]
    others = [path for path in files if path not in bests]
    lines += [f'last checkpoint: {path}' for path in others[-1:]]
    shown = [work_dir / TABLE, work_dir / CURVES]
    lines += [f'scores: {path}' for path in shown if path.exists()]
    if files:
        weights = (bests or others)[-1]
        words = f'{work_dir / config.name} {weights}'
        lines.append(f'next: python tools/test.py {words}')
        lines.append(f'      python tools/inference.py {words} IMAGES')
        lines.append(f'      python tools/publish_model.py {weights} {config.stem}.pth')
    return lines
