"""Write a clean file of weights from a RAVLT or L2ViT checkpoint of any layout.

python tools/convert_checkpoint.py RAVLT_T.pth backbone.safetensors --for backbone
"""

import argparse

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.checkpoint import USES, CheckpointError, convert_file
from mmravlt.command_line import exit_on


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write the weights of a RAVLT or L2ViT checkpoint (released, of '
        'mmcv 1.x, of MMEngine or a plain state dict) to a clean file for exactly one '
        'use'
    )
    parser.add_argument('source', metavar='SRC', help='checkpoint file')
    parser.add_argument(
        'target', metavar='DST', help='new file, NAME.pth or NAME.safetensors'
    )
    parser.add_argument(
        '--for',
        dest='use',
        choices=USES,
        help='what the new file is for; what SRC is, by default',
    )
    parser.add_argument(
        '--ema',
        choices=['yes', 'no'],
        help='of a training that kept a moving average of its weights, take the '
        'average (yes) or the raw weights (no); by default those that its own program '
        'evaluates: MMEngine and mmcv 1.x the average, DeiT the raw weights',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    averaged = None if args.ema is None else args.ema == 'yes'
    with exit_on(CheckpointError):
        print(convert_file(args.source, args.target, args.use, averaged))


if __name__ == '__main__':
    main()
