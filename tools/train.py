"""Train a model of any of the three libraries; the config decides which.

python tools/train.py configs/mmdet/mask_rcnn_ravlt_t_1x.py
"""

import argparse

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.checkpoint import CheckpointError
from mmravlt.command_line import (
    add_common_arguments,
    build_runner,
    check_resumable,
    exit_on,
    exit_on_missing_files,
    read_run_config,
)
from mmravlt.openmmlab.device import adapt_to_device, leave_gloo


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
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


def main() -> None:
    args = parse_args()
    cfg = read_run_config(args, training=True)
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
    if args.resume:
        cfg.resume = True
        cfg.load_from = None
        if args.resume != 'auto':
            with exit_on(CheckpointError):
                check_resumable(args.resume)
            cfg.load_from = args.resume
    adapt_to_device(cfg)
    with exit_on_missing_files():
        build_runner(cfg).train()
    leave_gloo()


if __name__ == '__main__':
    main()
