"""Predict on images with a model of any of the three libraries, and draw it.

python tools/inference.py configs/mmdet/mask_rcnn_ravlt_t_1x.py CHECKPOINT photos
"""

import argparse
import json
import tempfile
import warnings
from importlib import import_module
from itertools import chain, count
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.checkpoint import CheckpointError
from mmravlt.command_line import (
    add_cfg_options,
    add_optimize,
    existing_device,
    exit_on,
    find_images,
    name_classes,
    optimized,
    read_config,
)
from mmravlt.custom_data.common import image_size
from mmravlt.openmmlab.weight_remapping import needs_all_weights

INFERENCERS = {
    'mmdet': 'DetInferencer',
    'mmseg': 'MMSegInferencer',
    'mmpretrain': 'ImageClassificationInferencer',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Predict on images and draw it')
    said = 'config file; after a training with --data, the one in its work dir'
    parser.add_argument('config', help=said)
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('images', nargs='+', help='image files, and folders of them')
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        default='predictions',
        help='where drawings (vis) and predictions (preds) go (default: %(default)s)',
    )
    parser.add_argument(
        '--device', type=existing_device, help='such as cpu or cuda:1; a GPU by default'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='draw only objects with at least this score, from 0 to 1 (default: '
        '%(default)s); the files in preds hold all',
    )
    add_optimize(parser)
    add_cfg_options(parser)
    # what read_config knows of other tools
    parser.set_defaults(data=None, work_dir=None, launcher='none', local_rank=0)
    return parser.parse_args()


def build_inferencer(cfg: Config, args: argparse.Namespace):
    """The library's own inferencer, with all weights and the names of the classes."""
    scope = cfg.default_scope
    kind = getattr(import_module(f'{scope}.apis'), INFERENCERS[scope])
    init_default_scope(scope)  # not all versions of all three do it themselves
    no_weights = dict(pretrained=False) if scope == 'mmpretrain' else {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about weights and classes, which follow
        inferencer = kind(cfg, device=args.device or get_device(), **no_weights)
    with exit_on(CheckpointError), needs_all_weights():
        checkpoint = load_checkpoint(inferencer.model, args.checkpoint, 'cpu')
    names = name_classes(checkpoint.get('meta') or {}, cfg)
    inferencer.classes = names['classes']  # where mmpretrain looks
    inferencer.model.dataset_meta = names  # where mmseg looks
    if inferencer.visualizer:  # where mmdet looks
        inferencer.visualizer.dataset_meta = names
    inferencer.show_progress = False
    if scope == 'mmpretrain':
        import_module('mmpretrain.utils.progress').disable_progress_bar = True
    if args.optimize:
        inferencer.model = optimized(inferencer.model)
    return inferencer


def predict(inferencer, scope: str, image: Path, score_thr: float) -> tuple:
    """What is in an image, as plain values, its drawing, and mmseg's class map."""
    if scope == 'mmpretrain':
        side = max(224, min(image_size(image)))  # or its text is too small
        with tempfile.TemporaryDirectory() as unused:  # or it would not draw
            (found,) = inferencer(str(image), show_dir=unused, resize=side)
        found['pred_scores'] = found['pred_scores'].tolist()
        return found, inferencer.visualizer.get_image(), None
    names = inferencer.classes
    if scope == 'mmdet':
        done = inferencer(str(image), return_vis=True, pred_score_thr=score_thr)
        (found,), (drawing,) = done['predictions'], done['visualization']
        found['classes'] = [names[label] for label in found['labels']]
        return found, drawing, None
    done = inferencer(str(image), return_vis=True)
    labels, counts = np.unique(done['predictions'], return_counts=True)
    found = dict(labels=labels.tolist(), shares=(counts / counts.sum()).tolist())
    found['classes'] = [names[label] for label in labels]
    return found, done['visualization'], done['predictions']


def main() -> None:
    args = parse_args()
    cfg = read_config(args, training=False)
    scope = cfg.get('default_scope')
    if scope not in INFERENCERS or not cfg.get('test_dataloader'):
        raise SystemExit(
            f'error: {args.config} must have a test_dataloader, which prepares images, '
            f'and a default_scope out of {", ".join(INFERENCERS)}'
        )
    images, problems = find_images(args.images)
    if images:
        inferencer = build_inferencer(cfg, args)
    drawings, predictions = Path(args.out_dir, 'vis'), Path(args.out_dir, 'preds')
    taken = set()  # two folders may have images of one name
    for image in images:
        numbered = (f'{image.stem}_{i}' for i in count(2))
        name = next(n for n in chain([image.stem], numbered) if n not in taken)
        taken.add(name)
        found, drawing, class_map = predict(inferencer, scope, image, args.score_thr)
        with exit_on(OSError):
            predictions.mkdir(parents=True, exist_ok=True)
            mmcv.imwrite(drawing[..., ::-1], str(drawings / f'{name}.png'))
            if class_map is not None:
                kind = np.uint8 if len(inferencer.classes) <= 256 else np.uint16
                mmcv.imwrite(class_map.astype(kind), str(predictions / f'{name}.png'))
            text = json.dumps(dict(image=str(image), **found))
            (predictions / f'{name}.json').write_text(text)
        print(f'{image}: drawn in {drawings / name}.png')
    if problems:
        raise SystemExit('\n'.join(f'error: {problem}' for problem in problems))


if __name__ == '__main__':
    main()
