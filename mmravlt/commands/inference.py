"""Predict on images with a model of any of the three libraries, and draw it."""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from .. import tasks
from ..checkpoint import CheckpointError
from ..command_line import (
    exit_on,
    find_images,
    name_classes,
    optimized,
    read_config,
    use_chosen_device,
)
from ..data.images import read_image
from ..openmmlab.weight_remapping import needs_all_weights
from ..tasks.config import bit_depth_of, longest_side
from .console import Console, say


def build_inferencer(task: tasks.Task, cfg: Config, args: argparse.Namespace):
    """The library's own inferencer, with all weights and the names of the classes."""
    init_default_scope(cfg.default_scope)  # not all versions of all three do it
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about weights and classes, which follow
        inferencer = task.build_inferencer(cfg, args.device or get_device())
    with exit_on(CheckpointError), needs_all_weights():
        checkpoint = load_checkpoint(inferencer.model, args.checkpoint, 'cpu')
    names = name_classes(checkpoint.get('meta') or {}, cfg)
    inferencer.classes = names['classes']  # where mmpretrain looks
    inferencer.model.dataset_meta = names  # where mmseg looks
    if inferencer.visualizer:  # where mmdet looks
        inferencer.visualizer.dataset_meta = names
    inferencer.show_progress = False
    if args.optimize:
        inferencer.model = optimized(inferencer.model)
    return inferencer


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an image in grey (H, W) or in RGB (H, W, 3)."""
    mmcv.imwrite(pixels[..., ::-1] if pixels.ndim == 3 else pixels, str(path))


@contextmanager
def in_8_bits(image: Path, bit_depth: int | None) -> Iterator[Path]:
    """Give an image that was scaled as in training; mmpretrain would not do so."""
    if bit_depth is None:
        yield image
        return
    with tempfile.TemporaryDirectory() as folder:
        scaled = Path(folder, f'{image.stem}.png')
        mmcv.imwrite(read_image(image, bit_depth), str(scaled))
        yield scaled


def run(args: argparse.Namespace, console: Console | None) -> None:
    """Predict and draw as the command line says.

    Args:
        args (Namespace): of :func:`mmravlt.commands.arguments.parse_inference`.
        console (Console | None): where people read; not needed here.
    """
    use_chosen_device(args.device)
    cfg = read_config(args.config, args.cfg_options)
    with exit_on(tasks.TaskError):
        task = tasks.of(cfg)
    if not cfg.get('test_dataloader'):
        raise SystemExit(
            f'error: {args.config} must have a test_dataloader, which prepares images'
        )
    images, problems = find_images(args.images, longest_side(cfg, ['test_dataloader']))
    bit_depth = bit_depth_of(cfg)
    if images:
        inferencer = build_inferencer(task, cfg, args)
    failed = {}
    drawings, predictions = Path(args.out_dir, 'vis'), Path(args.out_dir, 'preds')
    taken = set()  # two folders may have images of one name
    for image in images:
        numbered = (f'{image.stem}_{i}' for i in count(2))
        name = next(n for n in chain([image.stem], numbered) if n not in taken)
        taken.add(name)
        try:
            with in_8_bits(image, bit_depth) as readable:
                done = task.predict(inferencer, readable, args.score_thr)
        except Exception as error:  # whatever reading, the model or drawing raises
            failed[image] = f'{type(error).__name__}: {error}'.split('\n')[0]
            continue
        with exit_on(OSError):
            predictions.mkdir(parents=True, exist_ok=True)
            write_png(drawings / f'{name}.png', done.drawing)
            if done.label_map is not None:
                write_png(predictions / f'{name}.png', done.label_map)
            text = json.dumps(dict(image=str(image), **done.found))
            (predictions / f'{name}.json').write_text(text)
        say(f'{image}: drawn in {drawings / name}.png')
    if len(failed) == len(images) > 1 and len(set(failed.values())) == 1:
        problems.append(f'all {len(images)} images failed alike: {failed[images[0]]}')
    else:
        problems += [f'{image} failed: {text}' for image, text in failed.items()]
    if problems:
        raise SystemExit('\n'.join(f'error: {problem}' for problem in problems))
