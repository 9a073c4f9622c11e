"""What ``tools/train.py`` and ``tools/test.py`` have in common."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .checkpoint import CheckpointError, load_file
from .custom_data import DataError, use_custom_data


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share, as mmdet names them."""
    parser.add_argument(
        '--work-dir',
        help='where logs, checkpoints and scores go; ./work_dirs/<config> by default',
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='train and test on the data in this folder, with its classes. Detection: '
        'COCO-style (annotations/instances_{train,val}*.json and image folders). '
        'Segmentation: images/{train,val}, annotations/{train,val} (PNGs of class '
        'indices, 255 is ignored) and classes.txt (a name per line), or a copy of '
        'ADE20K. Classification: train/<class>/ and val/<class>/',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (fp16)'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how several processes were started',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides settings of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=24 or '
        'key="[a,b]" or key="[(a,b),(c,d)]", without blanks',
    )


def read_config(args: argparse.Namespace, training: bool) -> Config:
    """Read the config that ``args`` names and apply the shared options.

    Exits with one sentence if the config or the data folder cannot be used.

    Args:
        args (Namespace): with ``config`` and the options added above.
        training (bool): whether ``--data`` must have training data.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not Path(args.config).is_file():
        raise SystemExit(f'error: there is no config file {args.config}')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.data:
        with exit_on(DataError):
            use_custom_data(cfg, args.data, training)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg


def check_resumable(path: str) -> None:
    """Make sure that a file holds the state of a training, not weights alone.

    Args:
        path (str): a file; addresses are not looked at.

    Raises:
        CheckpointError: if it does not.
    """
    if '://' in path:
        return
    checkpoint = load_file(path)
    if 'iter' not in (checkpoint.get('meta') or {}):
        raise CheckpointError(
            f'{path} holds no state of a training to go on from; to start from its '
            f'weights, use --cfg-options load_from={path} instead of --resume'
        )


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextmanager
def exit_on(*errors: type[Exception]) -> Iterator[None]:
    """End the program with the message of these errors, without a traceback."""
    try:
        yield
    except errors as error:
        raise SystemExit(f'error: {error}') from None


@contextmanager
def exit_on_missing_files() -> Iterator[None]:
    """End the program with one sentence where a checkpoint or the data is missing."""
    try:
        with exit_on(CheckpointError):
            yield
    except FileNotFoundError as error:
        raise SystemExit(
            f'error: {error}; put it there, or give a folder of your own with --data'
        ) from None
