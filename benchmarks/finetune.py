"""Peers trained on one dataset under one budget: the same head, recipe and images."""

import argparse
import statistics
from itertools import product
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import Progress

from mmravlt.analysis.flops import markdown_table
from mmravlt.command_line import data_options
from mmravlt.commands.arguments import add_data_options
from mmravlt.data.check import tasks_of
from mmravlt.schedules import steps_per_epoch

from . import models
from .command import (
    add_command,
    add_device,
    add_out,
    add_threads,
    positive,
    use_device,
)
from .errors import BenchmarkError
from .recipes import RECIPES, Setting, build, default_size, read, train
from .results import Row, file_of, write_csv

DEFAULT = ['ravlt_t', 'swin_t', 'resnet_50']
EPOCHS = 12
LEAST_SIZE = 32  # of which the last map has one pixel


def find_task(folder: str) -> str:
    """The task that the files in a folder are for.

    Raises:
        BenchmarkError: if they do not decide on one of :data:`RECIPES`.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise BenchmarkError(f'--data {folder}: there is no such folder.')
    found = [task for task in tasks_of(root) if task in RECIPES]
    if len(found) != 1:
        raise BenchmarkError(
            f'--data {folder}: its files do not decide on one task; give --task with '
            f'one of {", ".join(found or RECIPES)}.'
        )
    return found[0]


def read_weights(given: list[str], names: list[str]) -> dict[str, str]:
    """The files of ``--weights``, by the names of models.

    Raises:
        BenchmarkError: if one is of no model or not there.
    """
    files = {}
    for text in given:
        name, equals, path = text.partition('=')
        if text == 'none' or path == 'none':
            continue
        if not equals or name not in names:
            raise BenchmarkError(
                f'--weights {text} names no contestant; give NAME=FILE with a NAME '
                f'out of {", ".join(names)}, or none.'
            )
        if not Path(path).is_file():
            raise BenchmarkError(f'--weights {text}: there is no file {path}.')
        files[name] = path
    return files


def train_all(
    cfg: Config,
    setting: Setting,
    steps: int,
    names: list[str],
    rates: list[float],
    seeds: int,
    weights: dict[str, str],
    path: Path,
) -> list[Row]:
    """Train every model at every rate with every seed; write after each training."""
    for name, file in weights.items():  # before hours are spent on others
        build(cfg, name, 0, file)
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task('', total=seeds * len(names) * len(rates) * steps)
        for seed, name, lr in product(range(seeds), names, rates):
            progress.update(bar, description=f'{name}, seed {seed}, rate {lr:g}')
            rows.append(
                train(
                    *(cfg, setting, steps, name, seed, lr, weights.get(name)),
                    lambda: progress.advance(bar),
                )
            )
            write_csv(path, rows)
    return rows


def best_rate(rows: list[Row]) -> list[Row]:
    """Of the rows of one model those with the rate of the best mean score."""
    by_rate = {}
    for row in rows:
        by_rate.setdefault(row['lr'], []).append(row)
    return max(by_rate.values(), key=lambda own: statistics.mean(_column(own, 'score')))


def _column(rows: list[Row], key: str) -> list[float]:
    return [row[key] for row in rows if row[key] != '']


def mean_and_spread(values: list[float]) -> str:
    """The mean, and the standard deviation if there are several."""
    if not values:
        return '–'
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def table(rows: list[Row]) -> str:
    """A Markdown table with a line for each model, at its best rate."""
    scores = [rows[0][key].rpartition('/')[2] for key in ('metric', 'second_metric')]
    headings = ['model', 'weights', 'parameters (M)', 'rate']
    headings += [f'{score} (%)' for score in scores]
    headings += ['seeds', 's per step', 's in all']
    lines = []
    for name in dict.fromkeys(row['model'] for row in rows):
        own = best_rate([row for row in rows if row['model'] == name])
        lines.append(
            [
                name,
                Path(str(own[0]['weights'])).name,
                f'{own[0]["params"] / 1e6:.2f}',
                f'{own[0]["lr"]:g}',
                mean_and_spread(_column(own, 'score')),
                mean_and_spread(_column(own, 'second')),
                str(len(own)),
                f'{statistics.mean(_column(own, "seconds_per_step")):.3f}',
                f'{statistics.mean(_column(own, "seconds")):.0f}',
            ]
        )
    return markdown_table(headings, lines)


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers, 'finetune', run_finetune, 'peers trained on data of your own'
    )
    command.add_argument(
        '--data', required=True, metavar='DIR', help='as docs/data.md describes it'
    )
    add_data_options(command)
    command.add_argument(
        '--task',
        choices=[*RECIPES],
        help='found out from the files by default; instance is chosen here only',
    )
    command.add_argument(
        '--models',
        nargs='+',
        default=DEFAULT,
        help=f'{models.KNOWN}; {" ".join(DEFAULT)} by default',
    )
    command.add_argument(
        '--weights',
        nargs='+',
        default=['none'],
        metavar='NAME=FILE',
        help='of backbones to start from; those that are not named start from random '
        'weights, as all do by default (none)',
    )
    length = command.add_mutually_exclusive_group()
    length.add_argument('--steps', type=positive, help='of each training')
    length.add_argument(
        '--epochs', type=positive, help=f'instead of steps; {EPOCHS} by default'
    )
    command.add_argument(
        '--seeds', type=positive, default=3, help='trainings of each model and rate'
    )
    command.add_argument(
        '--lr',
        type=float,
        nargs='+',
        help="the highest learning rate, the recipe's by default; of several, each "
        'model is judged by its best',
    )
    command.add_argument(
        '--image-size',
        type=positive,
        help='shorter side in pixels; by default that of the paper',
    )
    command.add_argument('--batch-size', type=positive, help="the recipe's by default")
    command.add_argument(
        '--workers', type=int, help='of each loader; 0 by default, with cuda 4'
    )
    add_device(command)
    add_threads(command)
    add_out(command)


def check(args: argparse.Namespace) -> None:
    """Make sure that all numbers can be trained with.

    Raises:
        BenchmarkError: if one cannot.
    """
    for lr in args.lr or ():
        if not 0 < lr < 1:
            raise BenchmarkError(f'--lr is {lr:g}; give a rate between 0 and 1.')
    if args.lr and len(set(args.lr)) < len(args.lr):
        given = ' '.join(f'{lr:g}' for lr in args.lr)
        raise BenchmarkError(f'a rate stands twice in --lr {given}; give it once.')
    if args.image_size and args.image_size < LEAST_SIZE:
        raise BenchmarkError(
            f'--image-size is {args.image_size}; give at least {LEAST_SIZE} pixels.'
        )
    if args.workers is not None and args.workers < 0:
        raise BenchmarkError(f'--workers is {args.workers}; give 0 or more.')


def run_finetune(args: argparse.Namespace) -> None:
    use_device(args)
    models.check_names(args.models, 'train')
    weights = read_weights(args.weights, args.models)
    check(args)
    task = args.task or find_task(args.data)
    size = args.image_size or default_size(task)
    workers = args.workers
    if workers is None:
        workers = 4 if args.device == 'cuda' else 0
    setting = Setting(task, size, args.batch_size, workers, args.device)
    cfg, data = read(args.data, setting, data_options(args))
    rates = args.lr or [cfg.optim_wrapper.optimizer.lr]
    steps = args.steps or (args.epochs or EPOCHS) * steps_per_epoch(cfg, data)
    batch = cfg.train_dataloader.batch_size
    for line in (data.found, *data.notes):
        print(f'--data: {line}')
    print(
        f'{task}: {RECIPES[task].head}; {size} pixels, {steps} steps of {batch} '
        f'images, {args.seeds} seeds, rates {" ".join(f"{lr:g}" for lr in rates)}'
    )
    words = (f'{size}px', f'steps{steps}', f'batch{batch}')
    start = 'weights' if weights else 'random'
    path = file_of(
        args.out, 'finetune', Path(args.data).resolve().name, task, *words, start
    )
    rows = train_all(
        *(cfg, setting, steps, args.models, rates, args.seeds, weights, path)
    )
    print(f'\n{table(rows)}\n\nwritten to {path}')
