"""Evaluate a checkpoint with any of the three libraries; the config decides which.

python tools/test.py configs/mmdet/mask_rcnn_ravlt_t_1x.py CHECKPOINT
"""

import argparse
import copy
import os

from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import METRICS
from mmengine.runner import Runner

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.command_line import (
    add_common_arguments,
    add_optimize,
    build_runner,
    exit_on_missing_files,
    optimized,
    read_config,
)
from mmravlt.openmmlab.device import adapt_to_device, leave_gloo
from mmravlt.openmmlab.weight_remapping import needs_all_weights


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    add_optimize(parser)
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


class DumpSegResults(DumpResults):
    """Dumps class maps without the scores of all classes, 100 times their size."""

    def process(self, data_batch: dict, predictions: list[dict]) -> None:
        kept = [
            {key: value for key, value in sample.items() if key != 'seg_logits'}
            for sample in predictions
        ]
        super().process(data_batch, kept)


def kind_of_dump(scope: str) -> type[DumpResults]:
    """The metric that writes the predictions of a library to a file."""
    if scope == 'mmdet':  # its own kind writes masks run-length encoded
        return METRICS.get('mmdet.DumpDetResults')
    return DumpSegResults if scope == 'mmseg' else DumpResults


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


def main() -> None:
    args = parse_args()
    cfg = read_config(args, training=False)
    cfg.load_from = args.checkpoint
    # Or mmseg would open the training data to draw predictions.
    cfg.train_dataloader = cfg.train_cfg = None
    cfg.optim_wrapper = cfg.param_scheduler = None
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    adapt_to_device(cfg)
    with exit_on_missing_files(), needs_all_weights():
        runner = build_runner(cfg)
        runner.register_hook(CompareClasses())
        if args.optimize:
            runner.register_hook(Optimize())
        if args.out:
            dump = kind_of_dump(cfg.get('default_scope'))(out_file_path=args.out)
            runner.test_evaluator.metrics.append(dump)
        runner.test()
    leave_gloo()


if __name__ == '__main__':
    main()
