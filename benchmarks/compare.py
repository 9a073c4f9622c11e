"""The commands ``backbone`` and ``model``: RAVLT in turns with other backbones."""

import argparse
from functools import partial
from pathlib import Path

from . import models
from .command import (
    add_command,
    add_condition,
    compare_sizes,
    condition_of,
    words_of,
)
from .results import file_of

SWEEP = [(side, side) for side in (224, 384, 512, 768, 1024, 1536, 2048)]


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers, 'backbone', run_backbone, 'backbones on random images'
    )
    command.add_argument(
        '--models', nargs='+', help=f'{models.KNOWN}; {" ".join(models.DEFAULT)}'
    )
    add_condition(command, 'in pixels; squares of 224 to 2048 by default')
    _add_variants(command)

    command = add_command(
        subparsers, 'model', run_model, 'whole detectors, segmentors or classifiers'
    )
    command.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    command.add_argument(
        '--backbones',
        nargs='+',
        default=['ravlt'],
        help="'ravlt' is the config's own; other names, as of the command backbone, "
        'replace it',
    )
    add_condition(
        command, '800x1280 (detectors), 512x2048 (segmentors) or 224 by default'
    )
    _add_variants(command)


def _add_variants(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--optimize',
        action='store_true',
        help='optimise every ravlt for inference',
    )
    command.add_argument(
        '--resident',
        action='store_true',
        help='peak resident memory on the CPU, in a process of its own (Linux)',
    )


def run_backbone(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    names = args.models or models.default_names()
    if args.optimize:
        names = [_optimized(name) for name in names]
    models.check_names(names, args.mode)
    sizes = args.sizes or SWEEP
    compare_sizes(
        args,
        names,
        sizes,
        partial(models.reason_to_skip, condition=condition),
        lambda name, here: partial(models.backbone_step, name, here, condition),
        file_of(args.out, *words_of(args, sizes)),
        condition,
    )


def _optimized(name: str) -> str:
    is_plain = name.startswith('ravlt') and not name.endswith('_optimized')
    return f'{name}_optimized' if is_plain else name


def run_model(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    names = args.backbones
    if args.optimize:
        names = [_optimized(name) for name in names]
    models.check_names(names, args.mode, models.OWN)
    for path in args.configs:
        sizes = args.sizes or [models.default_size(models.read_model(path))]
        print(path)
        compare_sizes(
            args,
            names,
            sizes,
            lambda name, here: (
                None
                if name in models.OWN
                else models.reason_to_skip(name, here, condition)
            ),
            lambda name, here, path=path: partial(
                models.model_step, path, name, here, condition
            ),
            file_of(args.out, *words_of(args, sizes, Path(path).stem)),
            condition,
        )
