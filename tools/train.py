"""Train a model of any of the three libraries; the config decides which.

python tools/train.py configs/mmdet/mask_rcnn_ravlt_t_1x.py
"""

import argparse
from pathlib import Path

from mmengine.config import Config

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt import tasks
from mmravlt.command_line import (
    add_common_arguments,
    build_runner,
    existing_device,
    exit_on,
    exit_on_missing_files,
    read_run_config,
    say,
)
from mmravlt.data import Prepared
from mmravlt.openmmlab.device import adapt_to_device, leave_gloo, use_device
from mmravlt.openmmlab.results import CURVES, TABLE, ResultsHook
from mmravlt.resuming import check_resumable, newest_checkpoint
from mmravlt.schedules import doubts
from mmravlt.training import (
    OptionError,
    add_training_options,
    training_options,
    use_image_size,
    use_options,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    add_training_options(parser)
    parser.add_argument(
        '--device', type=existing_device, help='such as cpu or cuda:1; a GPU by default'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH|auto',
        help='go on from this checkpoint, or (auto) from the last one in --work-dir',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size over all GPUs',
    )
    return parser.parse_args()


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


def closing(work_dir: Path, config: Path, results: ResultsHook) -> list[str]:
    """What a training has reached, where it is, and what may come next."""
    lines = []
    files = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    bests = [path for path in files if path.name.startswith('best_')]
    if results.best:
        row = results.best
        lines.append(
            f'best {results.score}: {row[results.score]:g} (epoch {row["epoch"]:g}, '
            f'iteration {row["iteration"]:g})'
        )
    lines += [f'best checkpoint: {path}' for path in bests[-1:]]
    others = [path for path in files if path not in bests]
    lines += [f'last checkpoint: {path}' for path in others[-1:]]
    shown = [work_dir / TABLE, work_dir / CURVES]
    lines += [f'scores: {path}' for path in shown if path.exists()]
    if files:
        words = f'{work_dir / config.name} {(bests or others)[-1]}'
        lines.append(f'next: python tools/test.py {words}')
        lines.append(f'      python tools/inference.py {words} IMAGES')
    return lines


def main() -> None:
    args = parse_args()
    if args.device:
        use_device(args.device)

    options = training_options(args)

    def resize(cfg: Config) -> None:
        with exit_on(OptionError):
            use_image_size(cfg, options.image_size)

    def change(cfg: Config, data: Prepared | None) -> None:
        with exit_on(OptionError, tasks.TaskError):
            said = use_options(cfg, options, data)
        lines = [f'training: {line}' for line in (*said, *doubts(cfg, data))]
        if lines:
            say(*lines)

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
    checkpoint = find_checkpoint(args.resume, cfg.work_dir)
    if checkpoint:
        cfg.resume = True
        cfg.load_from = checkpoint
    adapt_to_device(cfg)
    with exit_on_missing_files():
        runner = build_runner(cfg)
        results = ResultsHook(score_of(cfg))
        runner.register_hook(results)
        if checkpoint:
            check_resumable(checkpoint, cfg, runner.model)
        runner.train()
    say(*closing(Path(cfg.work_dir), Path(args.config), results))
    leave_gloo()


if __name__ == '__main__':
    main()
