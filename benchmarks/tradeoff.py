"""Images per second of classifiers beside their published accuracy, Figure 7."""

import argparse
import re
import statistics
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmravlt.analysis.flops import markdown_table

from .command import add_command, add_dtype_and_runs, condition_of, words_of
from .errors import BenchmarkError
from .measure import Condition, Figures, Step, compare, module_step
from .models import optimize
from .plot import plot
from .results import Row, file_of, rows_of_size, write_csv

SIZE = (224, 224)
# Of mmpretrain's model index, all trained on ImageNet-1K alone and at 224×224.
DEFAULT = [
    *(f'ravlt_{arch}_in1k' for arch in 'tsbl'),
    *('swin-tiny_16xb64_in1k', 'swin-small_16xb64_in1k', 'swin-base_16xb64_in1k'),
    *('convnext-tiny_32xb128_in1k', 'convnext-small_32xb128_in1k'),
    'convnext-base_32xb128_in1k',
    *(f'pvt_v2_b{i}' for i in range(1, 6)),
    *('deit-tiny_4xb256_in1k', 'deit-small_4xb256_in1k', 'deit-base_16xb64_in1k'),
    *('resnet50_8xb32_in1k', 'resnet101_8xb32_in1k'),
]
# mmpretrain has no PVT v2: it is mmdet's backbone, with the average pooling and the
# linear layer of its own classifier. Blocks, and top-1 accuracy as its authors publish
# it, https://github.com/whai362/PVT.
PVT_V2 = {
    'pvt_v2_b1': ((2, 2, 2, 2), 78.7),
    'pvt_v2_b2': ((3, 4, 6, 3), 82.0),
    'pvt_v2_b3': ((3, 4, 18, 3), 83.1),
    'pvt_v2_b4': ((3, 8, 27, 3), 83.6),
    'pvt_v2_b5': ((3, 6, 40, 3), 83.8),
}
OPTIMIZED = '_optimized'
ROOT = Path(__file__).parents[1]


class Classifier:
    """A classifier by its name, with what is published of it.

    Args:
        name (str): in the model index of mmravlt or mmpretrain, or of :data:`PVT_V2`;
            a RAVLT's may end in '_optimized'.

    Attributes:
        family (str): what stands in the legend.
        top1 (float): published top-1 accuracy on ImageNet-1K in percent.
        source (str): who published it.

    Raises:
        BenchmarkError: if there is no such classifier, no accuracy of it, or a library
            that it needs is missing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_optimized = name.endswith(OPTIMIZED)
        if name in PVT_V2:
            _need(name, 'mmdet')
            self.family, self.source = 'PVT v2', 'github.com/whai362/PVT'
            self.top1 = PVT_V2[name][1]
            return
        entry = _index_entry(name)
        self.config = entry.config
        self.family = entry.in_collection.removesuffix(' classifiers')
        if self.is_optimized:
            if self.family != 'RAVLT':
                raise BenchmarkError(f'{name}: only a RAVLT can be optimised.')
            self.family += ', optimised'
        is_ours = Path(entry.filepath).is_relative_to(ROOT / 'configs')
        self.source = 'its paper' if is_ours else 'mmpretrain'
        if re.search(r'(?<!224)px|384', name):
            raise BenchmarkError(
                f'the accuracy of {name} is of images of another size than 224×224; '
                'leave it out.'
            )
        for result in entry.results or []:
            if result.dataset and result.dataset.lower() == 'imagenet-1k':
                self.top1 = float(result.metrics['Top 1 Accuracy'])
                return
        raise BenchmarkError(
            f'no top-1 accuracy on ImageNet-1K is published of {name}.'
        )

    def build(self) -> nn.Module:
        """The classifier with random weights; images (B, 3, H, W) to logits."""
        if self.name in PVT_V2:
            return _PooledPVTv2(PVT_V2[self.name][0])
        from mmpretrain import get_model

        model = get_model(self.config)
        return optimize(model) if self.is_optimized else model


class _PooledPVTv2(nn.Module):
    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        settings = dict(embed_dims=64, num_layers=depths, out_indices=(3,))
        if depths == PVT_V2['pvt_v2_b5'][0]:
            settings['mlp_ratios'] = (4, 4, 4, 4)
        with DefaultScope.overwrite_default_scope('mmdet'):
            from mmdet.models import PyramidVisionTransformerV2

            self.backbone = PyramidVisionTransformerV2(**settings)
        self.head = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[0].mean((2, 3)))


def _need(name: str, library: str) -> None:
    if not find_spec(library):
        raise BenchmarkError(f'{name} needs {library}, which is not installed.')


def _index_entry(name: str):
    """What the model index of mmpretrain, or ours beside it, says of a classifier."""
    _need(name, 'mmpretrain')
    from mmpretrain import list_models
    from mmpretrain.apis import ModelHub

    list_models()  # reads mmpretrain's index
    if not ModelHub.has('ravlt_t_in1k'):
        ModelHub.register_model_index(ROOT / 'model-index.yml', ROOT)
    try:
        return ModelHub.get(name.removesuffix(OPTIMIZED))
    except ValueError as error:
        raise BenchmarkError(
            f'there is no classifier {name}; give one of {", ".join(PVT_V2)}, of '
            'mmravlt, such as ravlt_t_in1k, or of mmpretrain.list_models().'
        ) from error


def step(classifier: Classifier, condition: Condition) -> Step:
    """A step of a classifier on random images of 224×224."""
    torch.manual_seed(0)
    model = classifier.build().to(condition.device)
    images = torch.randn(condition.batch, 3, *SIZE, device=condition.device)
    return module_step(model, partial(model, images), condition)


def tradeoff_rows(
    classifiers: list[Classifier], figures: dict[str, Figures], condition: Condition
) -> list[Row]:
    """Rows of a comparison with what a plot against accuracy needs."""
    rows = rows_of_size(figures, SIZE, (SIZE[0] // 4) * (SIZE[1] // 4), condition)
    for row, classifier in zip(rows, classifiers, strict=True):
        times = figures[classifier.name].times
        per_second = condition.batch / statistics.median(times) * 1e3 if times else ''
        row.update(
            family=classifier.family,
            top1=classifier.top1,
            top1_source=classifier.source,
            images_per_s=float(f'{per_second:.4g}') if times else '',
        )
    return rows


def table(rows: list[Row]) -> str:
    """A Markdown table with a line for each classifier."""
    headings = ['model', 'top-1 (%)', 'published by', 'images/s', 'peak MiB']
    keys = ['top1', 'top1_source', 'images_per_s', 'peak_mib']
    return markdown_table(
        headings,
        [
            [
                str(row['model']),
                *('–' if row[key] == '' else str(row[key]) for key in keys),
            ]
            for row in rows
        ],
    )


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    command = add_command(
        subparsers,
        'tradeoff',
        run_tradeoff,
        'images per second against published accuracy',
    )
    command.add_argument(
        '--models',
        nargs='+',
        default=DEFAULT,
        help='classifiers of mmravlt or mmpretrain by their names in the model index, '
        f'and {", ".join(PVT_V2)}; {" ".join(DEFAULT)}',
    )
    command.add_argument(
        '--optimize',
        action='store_true',
        help='measure every RAVLT a second time, optimised for inference',
    )
    command.set_defaults(mode='infer')
    add_dtype_and_runs(command)


def run_tradeoff(args: argparse.Namespace) -> None:
    condition = condition_of(args)
    names = list(dict.fromkeys(args.models))
    if args.optimize:
        names += [
            name + OPTIMIZED
            for name in names
            if name.startswith('ravlt') and not name.endswith(OPTIMIZED)
        ]
    classifiers = [Classifier(name) for name in names]
    makers = {c.name: partial(step, c, condition) for c in classifiers}
    figures, sentences = compare(makers, condition, 'tradeoff')
    for sentence in sentences:
        print(sentence)
    rows = tradeoff_rows(classifiers, figures, condition)
    path = file_of(args.out, *words_of(args, [SIZE]))
    write_csv(path, rows)
    print(f'\n{table(rows)}\n\nwritten to {path}')
    print(f'written to {plot(path)}')
