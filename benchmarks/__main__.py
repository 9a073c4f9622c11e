"""Measure speed and memory of RAVLT beside its peers.

python -m benchmarks op --sizes 56x56 200x320
python -m benchmarks backbone --models ravlt_t release_t swin_t --sizes 800x1280
python -m benchmarks backbone --models ravlt_t ravlt_t_llll
python -m benchmarks model configs/mmdet/mask_rcnn_ravlt_t_1x.py --mode train
python -m benchmarks parts --model ravlt_t --sizes 800x1280
python -m benchmarks tradeoff --batch 8
python -m benchmarks plot benchmarks/results/backbone_infer_cpu_float32_sweep_*.csv
python -m benchmarks zoo --data DIR
python -m benchmarks compile
python -m benchmarks gpu
"""

import argparse
import itertools
import math
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import MMLogger

import mmravlt  # noqa: F401  (first: mmdet cannot be imported without its ops)
from mmravlt.command_line import exit_on

from . import compiling, gpu, models, op, parts, tradeoff, zoo
from .errors import BenchmarkError
from .measure import DTYPES, Condition, Figures, Step, compare, copy_bandwidth
from .plot import plot
from .results import Row, file_of, name_of_sizes, report, rows_of_size, write_csv

LEAST_RUNS = 5
SWEEP = [(side, side) for side in (224, 384, 512, 768, 1024, 1536, 2048)]
DETECTION = (800, 1280)

Size = tuple[int, int]


def size(text: str) -> Size:
    """Height and width from '800x1280', or a square from '512'."""
    sides = text.split('x') if 'x' in text else [text, text]
    if len(sides) != 2 or not all(s.isdecimal() and int(s) > 0 for s in sides):
        raise argparse.ArgumentTypeError(
            f'{text} is no size; give height x width such as 800x1280, or one side'
        )
    return int(sides[0]), int(sides[1])


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number from 1')
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)

    def add(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    def add_out(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            '--out',
            help='a .csv file, or a folder in which files are named by their '
            'condition; benchmarks/results by default',
        )

    def add_condition(
        command: argparse.ArgumentParser, sizes: str, images: bool = True
    ) -> None:
        command.add_argument('--mode', choices=['infer', 'train'], default='infer')
        command.add_argument('--sizes', nargs='+', type=size, metavar='HxW', help=sizes)
        add_place(command)
        if images:
            command.add_argument(
                '--frozen-norms',
                action='store_true',
                help='train with fixed batch statistics',
            )

    def add_place(command: argparse.ArgumentParser) -> None:
        command.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
        command.add_argument('--dtype', choices=list(DTYPES), default='float32')
        command.add_argument('--batch', type=positive, default=1)
        command.add_argument(
            '--runs', type=positive, default=LEAST_RUNS, help='of each contestant'
        )
        command.add_argument('--threads', type=positive, help='of PyTorch on the CPU')
        add_out(command)

    def add_extras(command: argparse.ArgumentParser) -> None:
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

    command = add('op', run_op, 'attention alone')
    command.add_argument(
        '--models',
        nargs='+',
        default=['rala', 'rala_reference', 'release_rala', 'softmax', 'fla_rala'],
        help=f'out of {", ".join(op.OPS)}',
    )
    command.add_argument('--head-dim', type=positive, default=64)
    command.add_argument('--heads', type=positive, default=1)
    add_condition(command, 'of the map in tokens; 56 112 200x320 by default', False)

    command = add('backbone', run_backbone, 'backbones on random images')
    command.add_argument(
        '--models', nargs='+', help=f'{models.KNOWN}; {" ".join(models.DEFAULT)}'
    )
    add_condition(command, 'in pixels; squares of 224 to 2048 by default')
    add_extras(command)

    command = add('model', run_model, 'whole detectors, segmentors or classifiers')
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
    add_extras(command)

    command = add('parts', run_parts, 'where the time of a backbone goes')
    command.add_argument('--model', default='ravlt_t', help='a ravlt or a release')
    add_condition(command, 'in pixels, one size; 800x1280 by default')

    command = add(
        'tradeoff', run_tradeoff, 'images per second against published accuracy'
    )
    command.add_argument(
        '--models',
        nargs='+',
        default=tradeoff.DEFAULT,
        help='classifiers of mmravlt or mmpretrain by their names in the model index, '
        f'and {", ".join(tradeoff.PVT_V2)}; {" ".join(tradeoff.DEFAULT)}',
    )
    command.add_argument(
        '--optimize',
        action='store_true',
        help='measure every RAVLT a second time, optimised for inference',
    )
    command.set_defaults(mode='infer')
    add_place(command)

    command = add('plot', run_plot, 'draw PNG files from CSV files')
    command.add_argument('files', nargs='+', metavar='CSV')

    command = add('zoo', run_zoo, 'accuracy of attentions in the same small DeiT')
    command.add_argument(
        '--data', required=True, help='folder with train/<class>/ and val/<class>/'
    )
    command.add_argument(
        '--kinds', nargs='+', default=zoo.KINDS, help=f'out of {", ".join(zoo.KINDS)}'
    )
    command.add_argument(
        '--seeds', type=positive, default=3, help='trainings of each kind'
    )
    for option in fields(zoo.Setting):
        if option.type is int:
            command.add_argument(
                f'--{option.name}', type=positive, default=option.default
            )
    command.add_argument('--lr', type=float, default=zoo.Setting.lr)
    command.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    command.add_argument('--threads', type=positive, help='of PyTorch on the CPU')
    add_out(command)

    command = add(
        'compile', run_compile, "RALA's Triton kernels by the compiler's own figures"
    )
    command.add_argument(
        '--cards',
        nargs='+',
        type=int,
        choices=list(compiling.CARDS),
        default=list(compiling.CARDS),
        help='compute capabilities without their point; no such card is needed',
    )
    command.add_argument(
        '--dtypes', nargs='+', choices=list(DTYPES), default=list(DTYPES)
    )
    command.add_argument(
        '--head-dims', nargs='+', type=positive, default=compiling.HEAD_DIMS
    )
    command.add_argument(
        '--layouts',
        nargs='+',
        choices=compiling.LAYOUTS,
        default=compiling.LAYOUTS,
        help='of queries, keys and values in memory',
    )
    command.add_argument('--heads', nargs='+', type=positive, default=compiling.HEADS)
    command.add_argument(
        '--jobs', type=positive, default=os.cpu_count(), help='processes at a time'
    )
    add_out(command)

    command = add('gpu', run_gpu, 'tests and measurements on a GPU in ten minutes')
    command.add_argument(
        '--budget', type=positive, default=570, help='seconds for everything'
    )
    add_out(command)
    command = add('gpu-errors', run_gpu_errors, 'errors of rala against float64')
    add_out(command)
    return parser


def check_device(device: str) -> None:
    if device == 'cuda' and not torch.cuda.is_available():
        raise BenchmarkError('--device is cuda, but PyTorch sees no GPU here.')


def condition_of(args: argparse.Namespace) -> Condition:
    """Check and collect what all contestants share."""
    if args.runs < args.least_runs:
        raise BenchmarkError(
            f'--runs is {args.runs}; give at least {args.least_runs}, because the '
            'median of fewer says little.'
        )
    check_device(args.device)
    resident = getattr(args, 'resident', False)
    if resident and (
        args.device != 'cpu' or not Path('/proc/self/clear_refs').exists()
    ):
        raise BenchmarkError('--resident works with --device cpu on Linux only.')
    if getattr(args, 'optimize', False) and args.mode == 'train':
        raise BenchmarkError('--optimize is for --mode infer only.')
    if args.threads:
        torch.set_num_threads(args.threads)
    return Condition(
        *(args.mode, args.device, args.dtype, args.batch, args.runs),
        frozen_norms=getattr(args, 'frozen_norms', False),
        resident=resident,
    )


def compare_sizes(
    args: argparse.Namespace,
    names: list[str],
    sizes: list[Size],
    skip: Callable[[str, Size], str | None],
    make: Callable[[str, Size], Callable[[], Step]],
    path: Path,
    condition: Condition,
    extra: Callable[[Size, dict[str, Figures]], None] = lambda size, figures: None,
) -> None:
    """Compare contestants at every size; write after each, so that none is lost."""
    rows, said = [], set()
    stride = 1 if args.command == 'op' else 4
    for height, width in sizes:
        here = (height, width)
        makers = {}
        for name in names:
            if sentence := skip(name, here):
                if sentence not in said:
                    print(sentence)
                said.add(sentence)
            else:
                makers[name] = make(name, here)
        measured, sentences = compare(makers, condition, f'{height}x{width}')
        for sentence in sentences:
            print(sentence)
        figures = {name: measured.get(name, Figures()) for name in names}
        extra(here, figures)
        tokens = math.ceil(height / stride) * math.ceil(width / stride)
        rows += rows_of_size(figures, here, tokens, condition)
        write_csv(path, rows)
    report(path, rows)


def run_op(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    op.check_names(args.models)
    if args.head_dim % 4:
        raise BenchmarkError(f'--head-dim is {args.head_dim}; give a multiple of 4.')
    sizes = args.sizes or [(56, 56), (112, 112), (200, 320)]
    shape = dict(heads=args.heads)
    bandwidth = copy_bandwidth(args.device)

    def add_least(here: Size, figures: dict[str, Figures]) -> None:
        """The time of the least bytes, as if it were a contestant."""
        least = op.least_bytes(here, args.head_dim, args.heads, condition)
        floor = least / bandwidth * 1e3
        ratios = ', '.join(
            f'{name} {statistics.median(one.times) / floor:.3g}'
            for name, one in figures.items()
            if one.times
        )
        print(
            f'{here[0]}x{here[1]}: the least is {op.LEAST_PASSES[args.mode]} passes '
            f'over N×C, {least / 1e6:.4g} MB; at the {bandwidth / 1e9:.4g} GB/s of a '
            f'copy {floor:.3g} ms. Times as long: {ratios}.'
        )
        runs = max(len(one.times) for one in figures.values())
        figures['least_bytes'] = Figures([floor] * runs)

    compare_sizes(
        args,
        args.models,
        sizes,
        lambda name, here: op.reason_to_skip(name, here, condition=condition, **shape),
        lambda name, here: partial(
            op.op_step, name, here, args.head_dim, args.heads, condition
        ),
        file_of(
            args.out,
            *_words(args, sizes),
            f'heads{args.heads}_d{args.head_dim}',
        ),
        condition,
        add_least,
    )


def _words(args: argparse.Namespace, sizes: list[Size], *what: str) -> tuple[str, ...]:
    """The condition, as it stands in a file's name."""
    return (
        *(args.command, *what, args.mode, args.device, args.dtype),
        *(name_of_sizes(sizes), f'batch{args.batch}'),
        'frozen_norms' if getattr(args, 'frozen_norms', False) else '',
        'optimized' if getattr(args, 'optimize', False) else '',
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
        file_of(args.out, *_words(args, sizes)),
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
            file_of(args.out, *_words(args, sizes, Path(path).stem)),
            condition,
        )


def run_parts(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    models.check_names([args.model], args.mode)
    if models.parse(args.model) is None:
        raise BenchmarkError(
            f'the parts of {args.model} are not known; name a ravlt or a release.'
        )
    sizes = args.sizes or [DETECTION]
    if len(sizes) > 1:
        raise BenchmarkError(f'parts takes one size; --sizes names {len(sizes)}.')
    step = models.backbone_step(args.model, sizes[0], condition)
    path = file_of(args.out, *_words(args, sizes, args.model))
    # Hooks would be seen by the profiler, so operators come first.
    step()
    operators = parts.operators_table(step, args.device)
    measured = parts.measure_parts(step)
    write_csv(path, parts.parts_rows(measured))
    print(f'\nForward pass of {args.model}:\n\n{parts.parts_table(measured)}\n')
    print(f'The whole step by operators:\n\n{operators}\n\nwritten to {path}')


def run_tradeoff(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    names = list(dict.fromkeys(args.models))
    if args.optimize:
        names += [
            name + tradeoff.OPTIMIZED
            for name in names
            if name.startswith('ravlt') and not name.endswith(tradeoff.OPTIMIZED)
        ]
    classifiers = [tradeoff.Classifier(name) for name in names]
    makers = {c.name: partial(tradeoff.step, c, condition) for c in classifiers}
    figures, sentences = compare(makers, condition, 'tradeoff')
    for sentence in sentences:
        print(sentence)
    rows = tradeoff.tradeoff_rows(classifiers, figures, condition)
    path = file_of(args.out, *_words(args, [tradeoff.SIZE]))
    write_csv(path, rows)
    print(f'\n{tradeoff.table(rows)}\n\nwritten to {path}')
    print(f'written to {plot(path)}')


def run_plot(args: argparse.Namespace) -> None:
    for path in args.files:
        print(f'written to {plot(Path(path))}')


def run_zoo(args: argparse.Namespace) -> None:
    check_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    names = [option.name for option in fields(zoo.Setting)]
    setting = zoo.Setting(**{name: getattr(args, name) for name in names})
    data = Path(args.data)
    size = f'deit_dim{setting.dim}_depth{setting.depth}_patch{setting.patch}'
    training = f'epochs{setting.epochs}_batch{setting.batch}'
    path = file_of(args.out, 'zoo', data.name, f'{setting.size}px', size, training)
    rows = zoo.run(data, args.kinds, args.seeds, setting, path)
    print(f'\n{zoo.table(rows)}\n\nwritten to {path}')


def run_compile(args: argparse.Namespace) -> None:
    names = 'cards', 'dtypes', 'head_dims', 'heads', 'layouts'
    wanted = [list(dict.fromkeys(getattr(args, name))) for name in names]
    for head_dim in args.head_dims:
        if not 32 <= head_dim <= 128 or head_dim % 4:
            raise BenchmarkError(
                f'--head-dims names {head_dim}; give multiples of 4 from 32 to 128.'
            )
    cases = [compiling.Case(*values) for values in itertools.product(*wanted)]
    words = [
        f'{prefix}{values[0]}' if len(values) == 1 else f'{len(values)}{name}'
        for name, values, prefix in zip(
            names, wanted, ('sm', '', 'd', 'heads', ''), strict=True
        )
    ]
    path = file_of(args.out, 'compile', *words)

    def keep(rows: list[Row]) -> None:
        write_csv(path, rows)
        done = len(set(map(compiling.case_of, rows)))
        print(f'\r{done} of {len(cases)} cases', end='', file=sys.stderr, flush=True)

    rows = compiling.compile_all(cases, args.jobs, keep)
    print(file=sys.stderr)
    problems = compiling.problems(rows)
    for problem in problems:
        print(problem)
    if table := compiling.table(rows):
        print(f'\n{table}\n')
    print(f'kernels: {len(rows)}, written to {path}')
    if problems:
        raise BenchmarkError(f'{len(problems)} of {len(rows)} kernels are not right.')


def run_gpu(args: argparse.Namespace) -> None:
    gpu.run_all(args.out, args.budget)


def run_gpu_errors(args: argparse.Namespace) -> None:
    gpu.require_gpu()
    gpu.errors(args.out)


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
