"""``python -m mmravlt check-data DIR``: what is in a folder, and what is odd there."""

from __future__ import annotations

import argparse
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .classification import LAYOUTS as CLASSIFICATION
from .classification import prepare_classes
from .detection import LAYOUTS as DETECTION
from .detection import prepare_objects
from .panoptic import prepare_panoptic
from .segmentation import GENERAL, SPECIAL, prepare_maps
from .summary import SUMMARIES, Summary

SAMPLES = 6  # of each split

PREPARE = dict(
    detection=prepare_objects,
    segmentation=prepare_maps,
    classification=prepare_classes,
    panoptic=prepare_panoptic,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('folder', metavar='DIR', help='the data')
    parser.add_argument(
        '--task', choices=[*PREPARE], help='found out from the files by default'
    )
    parser.add_argument(
        '--masks', action='store_true', help='objects are to have masks, too'
    )
    parser.add_argument(
        '--val-fraction', type=float, metavar='F', help='as in training'
    )
    parser.add_argument('--bit-depth', type=int, choices=(8, 10, 12, 14, 16))
    parser.add_argument(
        '--out',
        default='check_data.png',
        metavar='PNG',
        help='where to draw what was found (default: %(default)s)',
    )


def check_data(args: argparse.Namespace) -> int:
    """Check the data in a folder for all tasks that it may be for.

    Returns:
        int: 0 if it can be used, else 1.
    """
    root = Path(args.folder).resolve()
    if not root.is_dir():
        print(f'error: {args.folder}: there is no such folder.')
        return 1
    tasks = [args.task] if args.task else tasks_of(root)
    out = Path(args.out)
    failed = False
    for task in tasks:
        options = DataOptions(
            masks=args.masks,
            val_fraction=args.val_fraction,
            bit_depth=args.bit_depth,
        )
        print(f'{root} as data for {task}')
        try:
            data = PREPARE[task](root, options)
        except DataError as error:
            print(f'error: {error}')
            failed = True
            continue
        summaries = {
            split: SUMMARIES[task](data, split, SAMPLES) for split in options.splits
        }
        print('\n'.join(describe(data, summaries)))
        place = out if len(tasks) == 1 else out.with_stem(f'{out.stem}_{task}')
        try:
            _draw(data, summaries, f'{root.name}: {data.layout}, {task}', place)
            print(f'drawn in {place}')
        except (DataError, OSError) as error:
            print(f'error: {place} cannot be drawn: {error}')
            failed = True
    return int(failed)


def tasks_of(root: Path) -> list[str]:
    """The tasks that the files in a folder are for.

    Where it is none, those for which it nearly is, or all but panoptic ones: their
    errors then say what is missing.
    """
    kinds = {
        kind: any(root.glob(f'annotations/{kind}_*.json'))
        for kind in ('panoptic', 'instances')
    }
    layouts = dict(
        detection=DETECTION,
        segmentation=SPECIAL + GENERAL,
        classification=CLASSIFICATION,
    )
    if kinds['panoptic'] and not kinds['instances']:
        del layouts['detection']
    found, doubtful = [], []
    for task, known in layouts.items():
        try:
            if any(layout.find(root) for layout in known):
                found.append(task)
        except DataError:  # which preparing the data for this task says
            doubtful.append(task)
    found += ['panoptic'] if kinds['panoptic'] else []
    if 'classification' in found and len(found) > 1:
        found.remove('classification')  # its folders may be those of any data
    return found or doubtful or list(layouts)


def describe(data: Prepared, summaries: dict[str, Summary]) -> list[str]:
    """What was found, a line each."""
    lines = [f'layout: {data.layout}', f'classes: {len(data.classes)}']
    if data.bit_depth:
        lines.append(f'bits per value: {data.bit_depth}')
    for split, summary in summaries.items():
        line = f'{split}: {summary.images} images'
        if summary.counted in ('objects', 'segments'):
            line += f', {sum(summary.counts.values()):.0f} {summary.counted}'
        lines.append(line)
    columns = list(summaries)
    counted = next(iter(summaries.values())).counted
    width = max([len(name) for name in data.classes] + [len(counted)])
    lines.append('  '.join([counted.ljust(width)] + [f'{c:>8}' for c in columns]))
    for name in next(iter(summaries.values())).counts:
        numbers = [summaries[split].counts.get(name, 0) for split in columns]
        shown = [f'{n:8.2f}' if isinstance(n, float) else f'{n:8d}' for n in numbers]
        lines.append('  '.join([name.ljust(width), *shown]))
    lines += [f'- {note}' for note in data.notes] or ['nothing odd was found']
    return lines


def _draw(data: Prepared, summaries: dict, title: str, path: Path) -> None:
    from .pictures import draw_data

    path.parent.mkdir(parents=True, exist_ok=True)
    classes = list(next(iter(summaries.values())).counts)
    draw_data(summaries, classes, title, path, data.bit_depth or 16)
