"""The options of the commands. Nothing slow is imported here, so help is there at once.

All that takes a library to check is checked when the command runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ..data.accepted import ACCEPTED


def parse_train() -> argparse.Namespace:
    """Read the options of a training."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    add_training_options(parser)
    add_device(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH|auto',
        help='go on from this checkpoint, or (auto) from the last one in --work-dir',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size over all GPUs',
    )
    parser.add_argument(
        '--preview',
        type=_at_least(1),
        metavar='N',
        help='draw N images as the training would get them, with their annotations, '
        'into preview.png in --work-dir, and end',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='build everything, run one step of training and one of evaluation, say '
        'what would happen and how long it would take, and write nothing',
    )
    return parser.parse_args()


def parse_test() -> argparse.Namespace:
    """Read the options of a test."""
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


def parse_inference() -> argparse.Namespace:
    """Read the options of a prediction."""
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
    add_device(parser)
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='draw only objects with at least this score, from 0 to 1 (default: '
        '%(default)s); the files in preds hold all',
    )
    add_optimize(parser)
    add_cfg_options(parser)
    add_verbose(parser)
    return parser.parse_args()


#: By the names of the modules beside this one.
PARSERS = dict(train=parse_train, test=parse_test, inference=parse_inference)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share, as mmdet names them."""
    parser.add_argument(
        '--work-dir',
        help='where logs, checkpoints and scores go; ./work_dirs/<config> by default',
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='train and test on the data in this folder, with its classes. For '
        + '. For '.join(f'{task}: {layout}' for task, layout in ACCEPTED.items()),
    )
    add_data_options(parser)
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (fp16)'
    )
    add_cfg_options(parser)
    add_verbose(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how several processes were started',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', action=_SetLocalRank, help=argparse.SUPPRESS
    )


class _SetLocalRank(argparse.Action):
    """What torch.distributed.launch passes becomes what torchrun sets instead."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        os.environ.setdefault('LOCAL_RANK', values)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen about the data of ``--data``."""
    parser.add_argument(
        '--val-fraction',
        type=float,
        metavar='F',
        help='of --data without a validation part: which fraction of the images is for '
        'validation, chosen by chance but the same each time',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='trust the files of --data and the values in them',
    )
    parser.add_argument(
        '--bit-depth',
        type=int,
        choices=(8, 10, 12, 14, 16),
        help='how many bits of images with more than 8 per value are in use; found out '
        'from the images by default',
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides settings of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=24 or '
        'key="[a,b]" or key="[(a,b),(c,d)]", without blanks',
    )


class _Settings(argparse.Action):
    """MMEngine's ``DictAction``, which is imported only where the option is given."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction

        action = DictAction(self.option_strings, self.dest, self.nargs)
        action(parser, namespace, values, option_string)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses a device."""
    parser.add_argument('--device', help='such as cpu or cuda:1; a GPU by default')


def add_optimize(parser: argparse.ArgumentParser) -> None:
    """Add the option for a faster backbone in testing."""
    parser.add_argument(
        '--optimize',
        action='store_true',
        help='let the backbone predict with fewer steps and less memory: its '
        'normalisation is merged into its convolutions, and large images are computed '
        'some rows at a time; predictions stay the same up to rounding',
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the option that shows what libraries say."""
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show all that the libraries say, as MMEngine does it, instead of a '
        'summary and a progress bar; the log file in the work dir always has it',
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`mmravlt.training.TrainingOptions`."""
    group = parser.add_argument_group(
        'training', 'Without these, a config trains as it is written.'
    )
    positive, whole = _at_least(1), _at_least(0)
    group.add_argument('--epochs', type=positive, help='how often each image is seen')
    group.add_argument(
        '--batch-size',
        type=positive,
        help='images per step and GPU; the learning rate follows, unless --lr is given',
    )
    group.add_argument('--lr', type=float, help='the learning rate at its highest')
    group.add_argument(
        '--image-size',
        type=_at_least(32),
        metavar='PIXELS',
        help='the shorter side of images in training and evaluation; other sizes, such '
        'as those of crops, follow',
    )
    group.add_argument(
        '--patience',
        type=positive,
        metavar='N',
        help='end after N evaluations without a better score',
    )
    group.add_argument('--workers', type=whole, help='processes of each data loader')
    group.add_argument('--seed', type=whole, help='of all random numbers')
    group.add_argument(
        '--weights', help='start from this file or address; "none" for random weights'
    )
    group.add_argument(
        '--freeze',
        type=whole,
        metavar='N',
        help='the patch embedding and the first N stages do not learn',
    )
    group.add_argument(
        '--logger',
        choices=['tensorboard', 'wandb', 'csv'],
        help='csv is results.csv, always written',
    )
    group.add_argument(
        '--keep',
        choices=['best', 'last', 'best,last', 'all'],
        help='which checkpoints stay on the disk',
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f'{value} is less than {least}')
        return value

    return number
