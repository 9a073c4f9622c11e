"""The length of a training, and all that is planned along it."""

from __future__ import annotations

import math
import os

from mmengine.config import Config

from .data import Prepared
from .tasks.config import dicts, type_name

# A warm-up takes at most this part of a run whose length was chosen.
WARM_UP = 0.1

# What states times in schedules, and epochs in hooks, such as that from which the
# augmentation is closed
TIMES = ('begin', 'end', 'T_max', 'total_iters', 'total_steps', 'step_size')
LISTS_OF_TIMES = ('milestones', 'periods', 'restarts')
EPOCHS_OF_HOOKS = ('switch_epoch', 'action_epoch', 'num_last_epochs')

# What states rates in schedules beside the optimiser's
RATES = ('eta_min', 'eta_max')


def num_processes() -> int:
    """Over how many processes a step is spread."""
    return int(os.environ.get('WORLD_SIZE', 1))


def steps_per_epoch(cfg: Config, data: Prepared | None) -> int | None:
    """Steps in an epoch; None if no data is known.

    Each image is seen once in them, unless the config counts epochs of a dataset that
    repeats its images.
    """
    if data is None:
        return None
    loader = cfg.train_dataloader
    images = data.splits['train']['images']
    if 'max_epochs' in cfg.train_cfg:
        for node in dicts(loader.dataset):
            images *= node['times'] if type_name(node) == 'RepeatDataset' else 1
    steps = images / (loader.batch_size * num_processes())
    return max(math.floor(steps) if loader.get('drop_last') else math.ceil(steps), 1)


def scale_schedules(
    cfg: Config, old: int, new: int, by_epoch: bool, steps: int | None
) -> None:
    """Stretch all schedules to a new length, and keep warm-ups short.

    Args:
        cfg (Config): changed in place.
        old, new (int): lengths in epochs, or in iterations.
        by_epoch (bool): whether they are in epochs.
        steps (int | None): iterations in an epoch, if known.
    """
    given = schedules(cfg)
    warm_ups = [s for s in given if is_warm_up(s)]
    others = [s for s in given if s not in warm_ups]
    for scheduler in warm_ups:
        _shorten(scheduler, new, by_epoch, steps)
    steady = [s for s in others if s.get('by_epoch', True) == by_epoch]
    mixed = [s for s in others if s not in steady]
    ends = [s['end'] for s in mixed if 'end' in s]
    for scheduler in steady:
        _stretch(scheduler, new / old)
    for scheduler in mixed:  # in iterations although the run counts epochs
        factor = new * steps / max(ends) if steps and ends else new / old
        _stretch(scheduler, factor)
    if given:
        cfg.param_scheduler = [
            s for s in given if s.get('begin', 0) < s.get('end', math.inf)
        ]
    if by_epoch:
        _scale_hooks(cfg, new / old)


def schedules(cfg: Config) -> list[dict]:
    """The schedules of a config, which may be one that is in no list."""
    given = cfg.get('param_scheduler') or []
    return given if isinstance(given, list) else [given]


def scale_rates(cfg: Config, factor: float) -> None:
    """Let the rates that schedules state follow that of the optimiser."""
    for scheduler in schedules(cfg):
        for key in RATES:
            if type_name(scheduler).endswith('LR') and scheduler.get(key):
                scheduler[key] *= factor


def _scale_hooks(cfg: Config, factor: float) -> None:
    """Let what happens at some epoch keep its place in the run."""
    for node in dicts(list(cfg.get('custom_hooks') or [])):
        for key in EPOCHS_OF_HOOKS:
            if isinstance(node.get(key), int):
                node[key] = max(round(node[key] * factor), 1)
    if cfg.train_cfg.get('dynamic_intervals'):
        cfg.train_cfg.dynamic_intervals = [
            (max(round(epoch * factor), 1), interval)
            for epoch, interval in cfg.train_cfg.dynamic_intervals
        ]


def is_warm_up(scheduler: dict) -> bool:
    """Whether a schedule raises the rate at the beginning of a run."""
    known = ('LinearLR', 'LinearParam', 'QuadraticWarmup')
    return type_name(scheduler).startswith(known) and (
        scheduler.get('start_factor', 1 / 3) < scheduler.get('end_factor', 1.0)
        and not scheduler.get('begin', 0)
    )


def _shorten(scheduler: dict, new: int, by_epoch: bool, steps: int | None) -> None:
    """Let a warm-up take at most a part of a run of ``new`` epochs or iterations."""
    length = new * (steps or 1) if by_epoch else new
    end = scheduler.get('end', 5)
    if scheduler.get('by_epoch', True):
        if not steps:
            scheduler['end'] = max(min(end, round(new * WARM_UP)), 1)
            return
        end *= steps
        scheduler.pop('convert_to_iter_based', None)
        scheduler['by_epoch'] = False
    elif by_epoch and not steps:
        return
    scheduler['end'] = max(min(end, int(length * WARM_UP)), 1)


def _stretch(scheduler: dict, factor: float) -> None:
    """Multiply all times of a schedule."""
    for key in TIMES:
        if isinstance(scheduler.get(key), int):
            least = 0 if key == 'begin' else 1
            scheduler[key] = max(round(scheduler[key] * factor), least)
    for key in LISTS_OF_TIMES:
        if key in scheduler:
            scheduler[key] = [max(round(t * factor), 1) for t in scheduler[key]]


def doubts(cfg: Config, data: Prepared | None) -> list[str]:
    """Why a run may learn nothing, a sentence each.

    Args:
        cfg (Config): of the run, with all options.
        data (Prepared | None): of ``--data``.
    """
    steps = steps_per_epoch(cfg, data)
    if steps is None:
        return []
    found = []
    images = data.splits['train']['images']
    batch = cfg.train_dataloader.batch_size * num_processes()
    if images < batch:
        found.append(
            f'a step takes {batch} images, but there are only {images} for training; '
            f'choose --batch-size {max(images // num_processes(), 1)} or less'
        )
    total = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * steps
    for scheduler in schedules(cfg):
        if is_warm_up(scheduler):
            per = steps if scheduler.get('by_epoch', True) else 1
            end = scheduler.get('end', 5) * per
            if end * 2 > total:
                found.append(
                    f'the run has {total} steps, but the learning rate rises during '
                    f'the first {end}; choose --epochs, with which the warm-up follows'
                )
    return found
