"""Options of a training in plain words, and what they change in a config.

A config states its schedule for its own data: so many epochs or iterations of so many
images. Where an option is given, all that depends on it follows.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from inspect import signature

from mmengine.config import Config
from mmengine.registry import MODELS

from . import tasks
from .data import Prepared
from .schedules import num_processes, scale_rates, scale_schedules, steps_per_epoch
from .tasks.config import dicts, type_name

LOGGERS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend')

# Which metric gives a score; which of its options decides on it, what that is if it is
# not given, and what it must hold
GIVEN_BY = {
    'coco/bbox_mAP': ('CocoMetric', 'metric', 'bbox', 'bbox'),
    'coco/segm_mAP': ('CocoMetric', 'metric', 'bbox', 'segm'),
    'coco_panoptic/PQ': ('CocoPanopticMetric', 'prefix', None, None),
    'mIoU': ('IoUMetric', 'iou_metrics', 'mIoU', 'mIoU'),
    'accuracy/top1': ('Accuracy', 'topk', 1, 1),
}

# What states sizes of images in pipelines
SIZES = (
    *('scale', 'scales', 'crop_size', 'size', 'img_scale', 'border', 'pad_size'),
    'random_size_range',
)


class OptionError(ValueError):
    """An option cannot be followed; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a user may choose about a training; None keeps what the config says.

    Attributes:
        epochs (int | None): how often each image is seen.
        batch_size (int | None): images in one step of one process.
        lr (float | None): the learning rate at its highest.
        image_size (int | None): the shorter side of the images, in pixels.
        patience (int | None): end after so many evaluations without a better score.
        workers (int | None): processes of each loader.
        seed (int | None): of all random numbers.
        weights (str | None): a file or address to start from; 'none' for random ones.
        freeze (int | None): stages of the backbone that do not learn; 0 is the patch
            embedding alone.
        logger (str | None): 'tensorboard', 'wandb' or 'csv'.
        keep (str | None): 'best', 'last', 'best,last' or 'all': which checkpoints.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    image_size: int | None = None
    patience: int | None = None
    workers: int | None = None
    seed: int | None = None
    weights: str | None = None
    freeze: int | None = None
    logger: str | None = None
    keep: str | None = None


def training_options(args: argparse.Namespace) -> TrainingOptions:
    """The options of a command line."""
    names = TrainingOptions.__dataclass_fields__
    return TrainingOptions(**{name: getattr(args, name) for name in names})


def use_options(
    cfg: Config, options: TrainingOptions, data: Prepared | None = None
) -> list[str]:
    """Change a config as the options say, but for the size of images.

    Args:
        cfg (Config): of a training, changed in place.
        options (TrainingOptions): what was chosen.
        data (Prepared | None): of ``--data``, with the number of images.

    Returns:
        list[str]: what each option became, a few words each.

    Raises:
        OptionError: if the config cannot follow an option.
    """
    said = []
    if options.image_size:
        said.append(f'images of {options.image_size} pixels')
    if options.batch_size or options.lr is not None:
        said.append(_set_batch_and_rate(cfg, options.batch_size, options.lr))
    if options.epochs or options.batch_size:
        said += _set_length(cfg, options.epochs, data, options.patience)
    if options.workers is not None:
        for loader in _loaders(cfg):
            loader.num_workers = options.workers
            loader.persistent_workers = options.workers > 0
        said.append(f'{options.workers} workers')
    if options.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=options.seed)
        said.append(f'seed {options.seed}')
    if options.weights is not None:
        _set_weights(cfg, options.weights)
        said.append(f'weights {options.weights}')
    if options.freeze is not None:
        _freeze(cfg, options.freeze)
        said.append(f'{options.freeze} stages frozen')
    if options.logger in LOGGERS:
        if not cfg.get('visualizer'):
            cfg.visualizer = dict(type='Visualizer')  # MMEngine's, as without it
        backends = cfg.visualizer.get('vis_backends') or []
        if LOGGERS[options.logger] not in map(type_name, backends):
            backends = [*backends, dict(type=LOGGERS[options.logger])]
        cfg.visualizer.vis_backends = backends
        said.append(f'logged to {options.logger}')
    if options.keep or options.patience:
        _set_checkpoints(cfg, options.keep or 'best,last')
    elif options.epochs and not _says_what_to_keep(cfg):
        _set_checkpoints(cfg, 'best,last' if _has_score(cfg) else 'last')
    if options.patience:
        name = tasks.of(cfg).score(cfg)
        hook = dict(type='EarlyStoppingHook', monitor=name, rule='greater')
        hook.update(patience=options.patience, min_delta=0.0)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
        said.append(f'ends after {options.patience} evaluations without better {name}')
    return said


def _loaders(cfg: Config) -> list[dict]:
    keys = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[key] for key in keys if cfg.get(key)]


def _set_batch_and_rate(cfg: Config, batch_size: int | None, lr: float | None) -> str:
    """Set the images of a step, and the rate; else the rate follows the batch.

    As with ``auto_scale_lr``, a rate stands for a batch of ``base_batch_size`` images
    over all processes and is proportional to it.
    """
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    old = optimizer.get('lr')
    if not old:
        raise OptionError(
            '--batch-size and --lr need a config with one optimiser and a rate '
            '(optim_wrapper.optimizer.lr); this one has none'
        )
    if batch_size:
        cfg.train_dataloader.batch_size = batch_size
    if lr is not None:
        if not 0 < lr < math.inf:
            raise OptionError(f'--lr must be above 0; it is {lr}')
        optimizer.lr = lr
    else:
        base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        if not base:
            raise OptionError(
                '--batch-size needs --lr beside it, because the config does not say '
                'for which batch its rate is (auto_scale_lr.base_batch_size)'
            )
        optimizer.lr *= cfg.train_dataloader.batch_size * num_processes() / base
    scale_rates(cfg, optimizer.lr / old)
    if cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.enable = False  # or it would be scaled twice
    return f'{cfg.train_dataloader.batch_size} images a step, rate {optimizer.lr:.3g}'


def _set_length(
    cfg: Config, epochs: int | None, data: Prepared | None, patience: int | None
) -> list[str]:
    """Set the length of a run, and let schedules, evaluation and saving follow it."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    before = cfg.train_cfg.get('val_interval', 1)
    steps = steps_per_epoch(cfg, data)
    old = cfg.train_cfg.max_epochs if by_epoch else cfg.train_cfg.max_iters
    if not epochs and not (by_epoch and steps):
        return []
    if steps is None and not by_epoch:
        raise OptionError(
            f'--epochs needs --data here, because this config counts {old} iterations '
            'and does not say how many images it has'
        )
    new = (epochs or old) if by_epoch else epochs * steps
    scale_schedules(cfg, old, new, by_epoch, steps)
    if by_epoch:
        cfg.train_cfg.max_epochs = new
        # the whole length, where a config closes its augmentation near the end
        interval = min(before, new)
        if epochs and not patience:
            interval = max(interval, min(_worthwhile(data), new // 4))
    else:
        cfg.train_cfg.max_iters = new
        interval = min(cfg.train_cfg.get('val_interval', steps), max(steps, new // 10))
    cfg.train_cfg.val_interval = interval
    if 'checkpoint' in (cfg.get('default_hooks') or {}):
        hook = cfg.default_hooks.checkpoint
        hook.interval = min(hook.get('interval', interval), interval)
    said = [f'{epochs or old} epochs' + (f' of {steps} steps' if steps else '')]
    if by_epoch and interval > before:
        said.append(f'evaluated every {interval} epochs, as there are few images')
    return said


def _worthwhile(data: Prepared | None) -> int:
    """Epochs between evaluations that look at half as many images as are learnt."""
    if data is None:
        return 1
    train, val = (data.splits[split]['images'] for split in ('train', 'val'))
    return math.ceil(2 * val / train)


def use_image_size(cfg: Config, side: int | None) -> None:
    """Let the shorter side of images be ``side``, and all other sizes follow.

    Args:
        cfg (Config): of a training, changed in place.
        side (int | None): in pixels; None changes nothing.

    Raises:
        OptionError: if the config does not resize images.
    """
    if side is None:
        return
    old = _short_side(cfg.get('test_dataloader') or cfg.val_dataloader)
    factor = side / old
    nodes = [loader.dataset for loader in _loaders(cfg)]
    nodes += cfg.get('custom_hooks') or []  # which may change the pipeline
    nodes.append(cfg.model.get('data_preprocessor') or {})
    if cfg.get('data_preprocessor'):
        nodes.append(cfg.data_preprocessor)
    for node in {id(node): node for node in dicts(nodes)}.values():
        for key in SIZES:
            if key in node:
                node[key] = _resized(node[key], factor)
    window = cfg.model.get('test_cfg') or {}
    for node, keys in (
        (window, ('crop_size', 'stride')),  # of a segmentor that slides over images
        (
            cfg.model.get('backbone') or {},
            ('img_size',),
        ),  # of a transformer with fixed positions
    ):
        for key in keys:
            if key in node:
                node[key] = _resized(node[key], factor)


def _short_side(loader: dict) -> int:
    """The shorter side that images are resized and cropped to in evaluation."""
    sizes = []
    for step in dicts(loader.dataset):
        for key in ('scale', 'crop_size'):
            value = step.get(key)
            if isinstance(value, int):
                sizes.append(value)
            elif isinstance(value, (list, tuple)) and value:
                sizes.append(min(value))
    if not sizes:
        raise OptionError(
            '--image-size needs a config whose evaluation resizes images; this one '
            'does not'
        )
    return sizes[-1]


def _resized(value, factor: float):
    """A size, or several in lists, multiplied."""
    if isinstance(value, (list, tuple)):
        return type(value)(_resized(v, factor) for v in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        return round(value * factor) or 1
    return value


def _freeze(cfg: Config, stages: int) -> None:
    """Let the first stages of the backbone not learn.

    Raises:
        OptionError: if the backbone has no such setting, or fewer stages.
    """
    backbone = cfg.model.get('backbone') or {}
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as models:
        kind = backbone.get('type', '')
        kind = models.get(kind) if kind and isinstance(kind, str) else kind
    if not _takes(kind, 'frozen_stages'):
        raise OptionError(
            f'--freeze needs a backbone with frozen_stages; the {type_name(backbone)} '
            'of this config has none'
        )
    backbone.frozen_stages = stages
    try:  # only the backbone knows how many stages it has
        with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as models:
            models.build({**backbone, 'init_cfg': None})
    except Exception as error:  # of whatever kind the backbone raises
        raise OptionError(f'--freeze {stages} cannot be followed: {error}') from None


def _takes(kind: type | None, name: str) -> bool:
    """Whether a class, or its parent if it passes on what it gets, has an argument."""
    for parent in getattr(kind, '__mro__', (object,))[:-1]:
        arguments = signature(parent).parameters
        if name in arguments or 'kwargs' not in arguments:
            return name in arguments
    return False


def _set_weights(cfg: Config, weights: str) -> None:
    for node in (cfg.model, cfg.model.get('backbone') or {}):
        for key in ('init_cfg', 'pretrained'):
            given = node.get(key)
            kinds = [type_name(part) for part in dicts(given)]
            if isinstance(given, str) or 'Pretrained' in kinds:
                node[key] = None
    cfg.load_from = None if weights == 'none' else weights


def _says_what_to_keep(cfg: Config) -> bool:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return 'max_keep_ckpts' in hook or 'save_best' in hook


def _has_score(cfg: Config) -> bool:
    """Whether an evaluation surely gives the score that the task is judged by."""
    try:
        score = tasks.of(cfg).score(cfg)
    except tasks.TaskError:
        return False
    kind, option, default, wanted = GIVEN_BY[score]
    for node in dicts(cfg.get('val_evaluator')):
        given = node.get(option, default)
        given = given if isinstance(given, (list, tuple)) else [given]
        if type_name(node) == kind and not node.get('prefix') and wanted in given:
            return True
    return False


def _set_checkpoints(cfg: Config, keep: str) -> None:
    if not cfg.get('val_dataloader') and keep != 'last':
        raise OptionError(
            '--patience and --keep need a config that evaluates (val_dataloader); '
            'this one does not: leave them out, or give --keep last alone'
        )
    cfg.setdefault('default_hooks', {})
    if not cfg.default_hooks.get('checkpoint'):
        cfg.default_hooks.checkpoint = dict(
            type='CheckpointHook',
            interval=cfg.train_cfg.get('val_interval', 1),
            by_epoch='max_epochs' in cfg.train_cfg,
        )
    hook = cfg.default_hooks.checkpoint
    kept = keep.split(',')
    hook.save_best = tasks.of(cfg).score(cfg) if keep != 'last' else None
    hook.rule = 'greater'
    hook.max_keep_ckpts = -1 if keep == 'all' else 1
    if keep != 'all':
        hook.save_last = 'last' in kept
    if keep == 'best':
        hook.interval = -1
