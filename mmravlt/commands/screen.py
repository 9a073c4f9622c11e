"""What a run is about to do, on one screen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import cached_path
from ..schedules import is_warm_up, num_processes, schedules
from ..tasks.config import dicts, type_name

WIDTH = 13  # of the names


def training_screen(
    runner: Runner, cfg: Config, score: str, notes: Iterable[str] = ()
) -> list[str]:
    """The lines that say what a training is about to do.

    Args:
        runner (Runner): that has built all it needs, and loaded its weights.
        cfg (Config): of the training, with ``work_dir`` as it is to be shown.
        score (str): by which it is judged; '' for none.
        notes (Iterable[str]): what else is to be said of the device.
    """
    rows = [
        ('model', model_words(runner.model, cfg)),
        ('device', device_words(cfg)),
        *(('', note) for note in notes),
        ('step', step_words(runner)),
        ('rate', rate_words(runner)),
        ('schedule', schedule_words(runner, cfg)),
        ('evaluation', evaluation_words(runner, score)),
        ('weights', weights_words(runner, cfg)),
        *place_rows(runner, cfg),
    ]
    return align(rows)


def evaluation_screen(
    runner: Runner, cfg: Config, checkpoint: str, notes: Iterable[str] = ()
) -> list[str]:
    """The lines that say what a test is about to do; the rest as for a training."""
    images = _size(runner.test_dataloader)
    rows = [
        ('model', model_words(runner.model, cfg)),
        ('device', device_words(cfg)),
        *(('', note) for note in notes),
        ('images', f'{images} in {_count(num_processes(), "process")}'),
        ('weights', checkpoint),
        *place_rows(runner, cfg),
    ]
    return align(rows)


def align(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of names and what belongs to them, in two columns."""
    return [
        f'{f"{name}:" if name else "":{WIDTH}}{words}' for name, words in rows if words
    ]


def model_words(model: nn.Module, cfg: Config) -> str:
    """The model, its backbone, and how many parameters of them learn."""
    while is_model_wrapper(model):
        model = model.module
    words = type(model).__name__
    backbone = cfg.model.get('backbone') or {}
    if type_name(backbone):
        words += f' on {type_name(backbone)}'
    if isinstance(backbone.get('arch'), str):
        words += f' ({backbone.arch})'
    if not isinstance(model, nn.Module):
        return words
    every = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    words += f', {every / 1e6:.2f} million parameters'
    return words + (
        '' if every == learning else f', {learning / 1e6:.2f} of them learn'
    )


def device_words(cfg: Config) -> str:
    """The device, and how many bits it computes with."""
    device = get_device()
    name = torch.cuda.get_device_name() if device == 'cuda' else device.upper()
    wrapper = cfg.get('optim_wrapper') or {}
    is_half = type_name(wrapper) == 'AmpOptimWrapper'
    is_half |= bool((cfg.get('test_cfg') or {}).get('fp16')) and not wrapper
    if not is_half:
        return f'{name}, float32'
    return f'{name}, mixed precision ({wrapper.get("dtype") or "float16"})'


def step_words(runner: Runner) -> str:
    """How many images a step takes, and over how many processes."""
    loader, processes = runner.train_dataloader, num_processes()
    size = getattr(loader, 'batch_size', None)
    if size is None:
        size = getattr(loader.batch_sampler, 'batch_size', None)
    if size is None:
        return _count(processes, 'process')
    words = f'{_count(size * processes, "image")} in {_count(processes, "process")}'
    parts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return words + (f', {parts} steps for each update' if parts > 1 else '')


def rate_words(runner: Runner) -> str:
    """The learning rate at its highest, and the optimiser."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:  # there are several
        return type(runner.optim_wrapper).__name__
    rates = [g.get('initial_lr', g['lr']) for g in optimizer.param_groups]
    words = f'{max(rates):.4g}'
    if min(rates) < max(rates):
        words += f', for parts of the model down to {min(rates):.4g}'
    return f'{words}, by {type(optimizer).__name__}'


def schedule_words(runner: Runner, cfg: Config) -> str:
    """The length of the run, and how the rate changes in it."""
    by_epoch = 'max_epochs' in (cfg.get('train_cfg') or {})
    steps = _count(runner.max_iters, 'step')
    if by_epoch:
        inner = _count(len(runner.train_dataloader), 'step')
        words = f'{_count(runner.max_epochs, "epoch")} of {inner}'
    else:
        words = steps
    if runner.iter:
        place = f'epoch {runner.epoch}' if by_epoch else f'step {runner.iter}'
        words += f', {place} is done'
    given = [s for s in schedules(cfg) if not type_name(s).endswith('Momentum')]
    end = runner.max_epochs if by_epoch else runner.max_iters
    return '; '.join([words, *filter(None, (_plan(s, end) for s in given))])


def _plan(scheduler: dict, end: int) -> str:
    """What a schedule does, in words; nothing if that is after the end of the run."""
    kind = type_name(scheduler)
    unit = 'epoch' if scheduler.get('by_epoch', True) else 'step'
    if is_warm_up(scheduler):
        return f'the rate rises for {_count(scheduler.get("end", 5), unit)}'
    if kind.startswith('MultiStep'):
        times = [str(t) for t in scheduler.get('milestones', ()) if t < end]
        if not times:
            return ''
        named = f'{unit}{"s" if len(times) > 1 else ""} {" and ".join(times)}'
        return f'times {scheduler.get("gamma", 0.1):g} after {named}'
    lowest = scheduler.get('eta_min') or 0
    if kind.startswith('CosineAnnealing') and scheduler.get('eta_min_ratio'):
        return f'falls as a cosine to {scheduler["eta_min_ratio"]:g} of it'
    if kind.startswith('CosineAnnealing'):
        return f'falls as a cosine to {lowest:g}'
    if kind.startswith('Poly'):
        return f'falls with the power {scheduler.get("power", 1):g} to {lowest:g}'
    return kind


def evaluation_words(runner: Runner, score: str) -> str:
    """When the run is evaluated, on what, and by which score it is judged."""
    if runner.val_loop is None:
        return 'none'
    loop = runner.train_loop
    unit = 'step' if 'Iter' in type(loop).__name__ else 'epoch'
    every = loop.val_interval
    words = f'every {unit if every == 1 else _count(every, unit)}'
    words += f' on {_count(_size(runner.val_dataloader), "image")}'
    return words + (f', judged by {score}' if score else '')


def weights_words(runner: Runner, cfg: Config) -> str:
    """What the weights are at the start."""
    if cfg.get('load_from'):
        end = ', from which the training goes on' if cfg.get('resume') else ''
        return f'{cfg.load_from}{end}'
    files = initial_weights(cfg)
    return f'{", ".join(files)}; the rest is random' if files else 'random'


def initial_weights(cfg: Config) -> list[str]:
    """Files and addresses of the weights that a config starts parts of a model from."""
    files = []
    for node in dicts(cfg.model):
        files += [node['checkpoint']] if type_name(node) == 'Pretrained' else []
        files += [node['pretrained']] if isinstance(node.get('pretrained'), str) else []
    return list(dict.fromkeys(map(str, files)))


def downloads(cfg: Config) -> list[str]:
    """What is downloaded before the run, a line each."""
    needed = [cfg.load_from] if cfg.get('load_from') else []
    if cfg.get('train_cfg'):  # a test does not start from them
        needed += initial_weights(cfg)
    return [
        f'downloading {url}'
        for url in needed
        if url.startswith('http') and not os.path.exists(cached_path(url))
    ]


def place_rows(runner: Runner, cfg: Config) -> list[tuple[str, str]]:
    """Where results and the log go."""
    folder = Path(cfg.work_dir)
    if runner.work_dir != os.path.abspath(folder):  # it only tries
        return [('results', str(folder))]
    log = folder / runner.timestamp / f'{runner.timestamp}.log'
    return [('results', str(folder)), ('log', str(log))]


def _size(loader) -> int:
    return len(loader.dataset)


def _count(number: int, noun: str) -> str:
    plural = f'{noun}es' if noun.endswith('s') else f'{noun}s'
    return f'{number} {noun if number == 1 else plural}'
