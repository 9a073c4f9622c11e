"""Write the weights of a training without its state, named by their hash.

python tools/publish_model.py work_dirs/mine/epoch_12.pth mask_rcnn_ravlt_t_1x.pth
"""

import argparse

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.checkpoint import CheckpointError, publish_file
from mmravlt.command_line import exit_on


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write the weights of a checkpoint and the facts about them, '
        'without optimiser, schedules and logs, to NAME-<first 8 digits of the '
        'SHA-256>.pth'
    )
    parser.add_argument('source', metavar='SRC', help='checkpoint file')
    parser.add_argument('target', metavar='DST', help='new file, NAME.pth')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with exit_on(CheckpointError):
        print(f'wrote {publish_file(args.source, args.target)}')


if __name__ == '__main__':
    main()
