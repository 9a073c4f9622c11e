"""Print parameters and FLOPs of a model of any of the three libraries.

python tools/get_flops.py configs/mmdet/mask_rcnn_ravlt_t_1x.py --shape 800 1280
"""

import argparse

from mmengine.logging import MMLogger

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt import tasks
from mmravlt.analysis.flops import (
    FlopsError,
    measure,
    measure_with_rala,
    models_table,
    parts_table,
)
from mmravlt.command_line import read_config
from mmravlt.commands.arguments import add_cfg_options

EXPLANATION = """
FLOPs are billions of multiply-adds for one image. Convolutions and linear layers are
what the paper of RAVLT counts; the last column, which is what the paper of L2ViT
counts, adds attention products, normalisation and resizing. Box heads are counted on
1000 proposals each, mask heads on 100.
"""


def side(text: str) -> int:
    """A height or width from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f'{text} is no size; give height and width in pixels, such as 800 1280'
        )
    return int(text)


def parse_args() -> argparse.Namespace:
    sizes = ', '.join(
        f'{task.image_size[0]} {task.image_size[1]} for {task.name}'
        for task in tasks.TASKS
    )
    parser = argparse.ArgumentParser(description='Print parameters and FLOPs')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=side,
        metavar=('H', 'W'),
        help=f'size of the image; as in the paper by default: {sizes}',
    )
    parser.add_argument(
        '--table',
        action='store_true',
        help='one Markdown table with a line for each config, instead of its parts',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # what a library says while it builds a model would get among the tables
    MMLogger.get_current_instance().setLevel('WARNING')
    rows = []
    for path in args.configs:
        cfg = read_config(path, args.cfg_options)
        try:
            costs = measure(cfg, args.shape)
            if args.table:
                rows.append((path, costs, measure_with_rala(cfg, args.shape)))
            else:
                print(f'{path}\n\n{parts_table(costs)}\n{EXPLANATION}')
        except FlopsError as error:
            raise SystemExit(f'error: {path}: {error}') from None
    if args.table:
        print(models_table(rows))


if __name__ == '__main__':
    main()
