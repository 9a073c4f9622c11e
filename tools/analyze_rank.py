"""Measure and draw the rank of KV buffers and output features in every layer.

python tools/analyze_rank.py configs/mmpretrain/ravlt_t_in1k.py none --data photos
"""

import argparse
from pathlib import Path

from mmengine.device import get_device
from mmengine.logging import MMLogger

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.analysis.rank import (
    THRESHOLD,
    UNTRAINED,
    analyze,
    build_model,
    choose_images,
    read_images,
    record,
    table,
    write_csv,
)
from mmravlt.analysis.rank_figures import draw
from mmravlt.checkpoint import CheckpointError
from mmravlt.command_line import existing_device, exit_on, read_config
from mmravlt.commands.arguments import add_cfg_options


def positive(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no count; give 1 or more')
    return int(text)


def share(text: str) -> float:
    """A share of the largest singular value from the command line."""
    try:
        if 0 <= float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f'{text} is no share; give a number from 0 to below 1, such as {THRESHOLD}'
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure and draw the rank of KV buffers and output features'
    )
    parser.add_argument(
        'models',
        nargs='+',
        metavar='CONFIG [CHECKPOINT]',
        help='config file (.py), and the checkpoint file or URL with its weights; with '
        'none, or without, its initial random weights. More of them are drawn in one '
        'plot',
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        dest='images',
        required=True,
        help='folder of images, with or without subfolders; of a data folder for '
        'training, the images for validation are taken',
    )
    parser.add_argument(
        '--num-images',
        type=positive,
        default=16,
        help='how many images of the folder, evenly spread (default: %(default)s)',
    )
    parser.add_argument(
        '--threshold',
        type=share,
        default=THRESHOLD,
        help='singular values above this share of the largest count for the rank '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--layer',
        type=positive,
        metavar='NUMBER',
        help='whose matrices are drawn, counted from 1; by default the middle one of '
        'those that have a KV buffer',
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        default='rank_analysis',
        help='where the table and figures go (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of initial random weights (default: %(default)s)',
    )
    parser.add_argument(
        '--device', type=existing_device, help='such as cpu or cuda:1; a GPU by default'
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    args.models = pairs(args.models, parser)
    return args


def pairs(words: list[str], parser: argparse.ArgumentParser) -> list[tuple]:
    """Configs and checkpoints, None for none, from the words of the command line."""
    found = []
    for word in words:
        if word.endswith('.py'):
            found.append((word, None))
        elif found and found[-1][1] is None:
            found[-1] = found[-1][0], word
        else:
            parser.error(f'{word}: a config file, which ends in .py, must come before')
    return [(config, None if c == 'none' else c) for config, c in found]


def main() -> None:
    args = parse_args()
    # what a library says while it builds a model would get among the lines below
    MMLogger.get_current_instance().setLevel('WARNING')
    with exit_on(ValueError):
        paths = choose_images(Path(args.images), args.num_images)
    models = []
    for config, checkpoint in args.models:
        cfg = read_config(config, args.cfg_options)
        if not cfg.get('test_dataloader') or not cfg.get('default_scope'):
            raise SystemExit(
                f'error: {config} must have a test_dataloader, which prepares images, '
                'and a default_scope'
            )
        name, weights = Path(config).stem, checkpoint or UNTRAINED
        with exit_on(CheckpointError, FileNotFoundError):
            model = build_model(cfg, checkpoint, args.seed)
        with exit_on(ValueError), record(model):  # refused before any image is read
            models.append((cfg, model, name, weights))
    analyses = []
    for cfg, model, name, weights in models:
        model.to(args.device or get_device())
        with exit_on(ValueError):
            inputs = read_images(cfg, model, paths)
            analyses.append(analyze(model, inputs, name, weights))
        model.cpu()
        print(f'{name} ({weights}): {len(paths)} images')
    folder = Path(args.out_dir)
    with exit_on(OSError, ValueError):
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(table(analyses, args.threshold), folder / 'ranks.csv')
        figures = draw(analyses, folder, args.threshold, args.layer)
    print(f'written: {", ".join(map(str, [folder / "ranks.csv", *figures]))}')


if __name__ == '__main__':
    main()
