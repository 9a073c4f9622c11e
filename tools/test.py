"""Evaluate a checkpoint with any of the three libraries; the config decides which.

python tools/test.py configs/mmdet/mask_rcnn_ravlt_t_1x.py CHECKPOINT
"""

import argparse
import os

from mmengine.config import Config
from mmengine.registry import METRICS

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.command_line import add_common_arguments, build_runner, read_config
from mmravlt.compat.device import adapt_to_device


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='write all predictions to this file'
    )
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draw the predictions into this folder'
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: the file name must end in .pkl')
    return args


def draw_predictions(cfg: Config, folder: str) -> None:
    """Turn on the library's own visualisation hook, which writes to ``folder``."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if not hook:
        raise SystemExit('error: --show-dir needs default_hooks.visualization')
    folder = os.path.abspath(folder)
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder)
    elif scope == 'mmseg':
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder
    elif scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder, interval=1)
    else:
        raise SystemExit(f'error: --show-dir does not know default_scope {scope!r}')


def main() -> None:
    args = parse_args()
    cfg = read_config(args, training=False)
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    adapt_to_device(cfg)
    runner = build_runner(cfg)
    if args.out:
        # mmdet's own kind writes masks run-length encoded.
        is_detector = cfg.get('default_scope') == 'mmdet'
        kind = 'mmdet.DumpDetResults' if is_detector else 'DumpResults'
        dump = METRICS.build(dict(type=kind, out_file_path=args.out))
        runner.test_evaluator.metrics.append(dump)
    runner.test()


if __name__ == '__main__':
    main()
