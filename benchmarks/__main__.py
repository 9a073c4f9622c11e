"""Measure speed and memory of RAVLT beside its peers.

python -m benchmarks op --sizes 56x56 200x320
python -m benchmarks backbone --models ravlt_t release_t swin_t --sizes 800x1280
python -m benchmarks backbone --models ravlt_t ravlt_t_llll
python -m benchmarks model configs/mmdet/mask_rcnn_ravlt_t_1x.py --mode train
python -m benchmarks parts --model ravlt_t --sizes 800x1280
python -m benchmarks tradeoff --batch 8
python -m benchmarks plot benchmarks/results/backbone_infer_cpu_float32_sweep_*.csv
python -m benchmarks zoo --data DIR
python -m benchmarks finetune --data DIR --models ravlt_t swin_t resnet_50
python -m benchmarks compile
python -m benchmarks gpu
"""

import argparse
import warnings
from collections.abc import Sequence

from mmengine.logging import MMLogger

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.command_line import exit_on

from . import compare, compile_report, finetune, gpu, op, parts, plot, tradeoff, zoo
from .command import LEAST_RUNS
from .errors import BenchmarkError

# In the order of the help.
MODULES = [op, compare, parts, tradeoff, plot, zoo, finetune, compile_report, gpu]


def make_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands, each from the module that carries it out."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest='command', required=True)
    for module in MODULES:
        module.add_commands(subparsers)
    return parser


def main(argv: Sequence[str] | None = None, least_runs: int = LEAST_RUNS) -> None:
    """Run a command.

    Args:
        argv (Sequence[str] | None): arguments; those of the process if None.
        least_runs (int): fewest runs that are accepted; fewer are for tests.
    """
    args = make_parser().parse_args(argv, argparse.Namespace(least_runs=least_runs))
    # what a library says while it builds a model would get among the tables
    MMLogger.get_current_instance().setLevel('WARNING')
    with exit_on(BenchmarkError), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        args.run(args)


if __name__ == '__main__':
    main()
