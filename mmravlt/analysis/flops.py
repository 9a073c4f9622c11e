"""Parameters and multiply-adds of a model, part by part, in two conventions.

The paper's FLOPs count convolutions and linear layers only, which leaves out what
attention costs: products of two computed tensors. So both are given: ``layers`` as
the paper counts, ``full`` with attention products, normalisation and resizing, which
is what the paper of L2ViT counts.

Everything runs on PyTorch's meta device: shapes without values, so a large model
at detection size takes no memory and little time.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mmravlt.tasks import TASKS, Task, TaskError

if TYPE_CHECKING:
    from mmengine.config import Config

_aten = torch.ops.aten
# Products of a tensor with a weight; those of two computed tensors are batched.
_LAYERS = (_aten.convolution, _aten.addmm, _aten.mm)

# Operations per element of the result that PyTorch's counter leaves out, as
# fvcore counts them.
_NORMS = {F.batch_norm: 2, F.layer_norm: 5, F.group_norm: 5}
_RESIZING = {'nearest': 1, 'bilinear': 4}


class FlopsError(ValueError):
    """Says in one sentence why a model cannot be counted."""


@dataclass(frozen=True)
class Cost:
    """What a part of a model costs for one image.

    Args:
        name (str): path of the module in the model.
        params (int): parameters; those shared with an earlier part are not
            counted again.
        layers (int): multiply-adds of convolutions and linear layers, as the
            paper counts.
        full (int): with all matrix products in attention, too (softmax
            attention's q·kᵀ and its product with v; RALA's with the global
            query, kᵀ·v, q·(kᵀ·v) and the denominator), and with normalisation
            and resizing, operations that add 1 % or less.
        runs_in_testing (bool): False for an auxiliary head, which only training
            runs; it has parameters, but no multiply-adds.
    """

    name: str
    params: int
    layers: int = 0
    full: int = 0
    runs_in_testing: bool = True


def total(costs: list[Cost]) -> Cost:
    """The sum of all parts.

    Parameters of an auxiliary head are included, as in the paper's sizes of
    UperNet.
    """
    return Cost(
        'total',
        sum(cost.params for cost in costs),
        sum(cost.layers for cost in costs),
        sum(cost.full for cost in costs),
    )


def count_multiply_adds(run: Callable[[], object]) -> tuple[object, int, int]:
    """Count what a function computes.

    Tensors must be on the meta device: elsewhere PyTorch has fused kernels for
    attention that its counter does not know.

    Args:
        run (Callable): called once, without arguments.

    Returns:
        tuple[object, int, int]: what ``run`` returned, and the two counts that
        :class:`Cost` calls ``layers`` and ``full``.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Rest() as rest:
        result = run()
    # PyTorch counts a multiplication and an addition as two.
    counts = counter.get_flop_counts().get('Global', {})
    layers = sum(counts.get(op, 0) for op in _LAYERS) // 2
    return result, layers, sum(counts.values()) // 2 + rest.operations


class _Rest(TorchFunctionMode):
    """Counts what PyTorch's counter leaves out: normalisation and resizing."""

    operations = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _NORMS:
            self.operations += _NORMS[func] * result.numel()
        elif func is F.interpolate:
            self.operations += _RESIZING.get(kwargs['mode'], 0) * result.numel()
        return result


def measure(cfg: 'Config', shape: tuple[int, int] | None = None) -> list[Cost]:
    """Count the parts of the model that a config describes.

    Args:
        cfg (Config): of mmdet, mmseg or mmpretrain.
        shape (tuple[int, int] | None): height and width of the image in
            pixels. None takes the paper's, the ``image_size`` of the task.

    Returns:
        list[Cost]: the parts in the order in which they run.

    Raises:
        FlopsError: if the model cannot be built, is of a kind that is not
            known here, or does not run at this size.
    """
    model = _build_on_meta(cfg)
    task, run_heads = _kind(model)
    height, width = shape or task.image_size
    channels = cfg.model.backbone.get('in_channels', 3)
    with torch.device('meta'):
        meter = _Meter(model, (height, width))
        features = meter.run('backbone', torch.empty(1, channels, height, width))
        if getattr(model, 'neck', None) is not None:
            features = meter.run('neck', features)
        try:
            run_heads(meter, features)
        except TaskError as error:
            raise FlopsError(str(error)) from None
    forgotten = {
        name.partition('.')[0]
        for name, parameter in model.named_parameters()
        if parameter not in meter.counted
    }
    if forgotten:
        raise FlopsError(
            f'the {type(model).__name__} has parts that are not counted here: '
            f'{", ".join(sorted(forgotten))}.'
        )
    return meter.costs


def measure_with_rala(
    cfg: 'Config', shape: tuple[int, int] | None = None
) -> list[Cost] | None:
    """Like :func:`measure`, with linear attention in all stages of RAVLT.

    Returns:
        list[Cost] | None: None if the backbone is not RAVLT.
    """
    if cfg.model.backbone.type.rpartition('.')[2] != 'RAVLT':
        return None
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.attention = ('rala',) * 4
    return measure(cfg, shape)


def parts_table(costs: list[Cost]) -> str:
    """A Markdown table with a line for each part and one for their sum."""
    rows = []
    for cost in [*costs, total(costs)]:
        flops = [_billions(cost.layers), _billions(cost.full)]
        if not cost.runs_in_testing:
            flops = ['training only', 'training only']
        rows.append([cost.name, f'{cost.params / 1e6:.2f}', *flops])
    return markdown_table(['part', *_HEADINGS], rows)


def models_table(
    models: Iterable[tuple[str, list[Cost], list[Cost] | None]],
) -> str:
    """A Markdown table with a line for each model.

    Args:
        models (Iterable): name, result of :func:`measure` and result of
            :func:`measure_with_rala` of each.
    """
    rows = []
    for name, costs, with_rala in models:
        whole = total(costs)
        linear = '–' if with_rala is None else _billions(total(with_rala).full)
        flops = [_billions(whole.layers), _billions(whole.full), linear]
        rows.append([name, f'{whole.params / 1e6:.2f}', *flops])
    return markdown_table(['config', *_HEADINGS, 'the same, RALA in all stages'], rows)


_HEADINGS = [
    'parameters (M)',
    'FLOPs (G), convolutions and linear layers',
    'FLOPs (G), with attention products',
]


def _billions(operations: int) -> str:
    return f'{operations / 1e9:.2f}'


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Columns of equal width, so that it reads well in a terminal, too."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        for row in [headings, *rows]
    ]
    lines.insert(1, rule)
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _build_on_meta(cfg: 'Config') -> nn.Module:
    """Build a config's model without values and without loading any weights."""
    from mmengine.registry import MODELS, DefaultScope

    if 'type' not in cfg.get('model', {}) or 'backbone' not in cfg.model:
        raise FlopsError('the config describes no model with a backbone.')
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            try:
                with torch.device('meta'):
                    model = MODELS.build(copy.deepcopy(cfg.model))
            except RuntimeError:
                # Some models read values while they are built: mmdet's Swin
                # takes its drop path rates from a tensor.
                model = MODELS.build(copy.deepcopy(cfg.model)).to('meta')
    except Exception as error:
        raise FlopsError(f'the model cannot be built: {_reason(error)}') from error
    return model.eval()


def _reason(error: Exception) -> str:
    return str(error).strip().partition('\n')[0] or type(error).__name__


class _Meter:
    """Runs parts of a model one after the other and notes what each costs."""

    def __init__(self, model: nn.Module, shape: tuple[int, int]) -> None:
        self.model = model
        self.shape = shape
        self.costs: list[Cost] = []
        self.counted: set[nn.Parameter] = set()

    def run(self, name: str, x: Tensor | tuple[Tensor, ...]) -> object:
        """Count the part at this path of the model and return its output."""
        try:
            module = self.model.get_submodule(name)
        except AttributeError:
            raise FlopsError(
                f'the {type(self.model).__name__} has no {name}, which is what is '
                'counted here of models of its kind.'
            ) from None
        try:
            y, layers, full = count_multiply_adds(lambda: module(x))
        except Exception as error:
            height, width = self.shape
            raise FlopsError(
                f'{name} ({type(module).__name__}) cannot be counted on a '
                f'{height}×{width} image: {_reason(error)}'
            ) from error
        self.costs.append(Cost(name, self._count_params(module), layers, full))
        return y

    def skip(self, name: str) -> None:
        """Note a part that only training runs."""
        params = self._count_params(self.model.get_submodule(name))
        self.costs.append(Cost(name, params, runs_in_testing=False))

    def _count_params(self, module: nn.Module) -> int:
        new = set(module.parameters()) - self.counted
        self.counted |= new
        return sum(parameter.numel() for parameter in new)


def _kind(model: nn.Module) -> tuple[Task, Callable]:
    """The task of a model, and what runs its heads, by the names of its classes.

    By names, so that no library is imported that the config does not use.
    """
    known = {name: (task, run) for task in TASKS for name, run in task.heads.items()}
    for base in type(model).__mro__:
        if base.__name__ in known:
            return known[base.__name__]
    names = ', '.join(f'{name} ({task.package})' for name, (task, _) in known.items())
    raise FlopsError(
        f'the model is a {type(model).__name__}; models of these kinds are counted '
        f'here: {names}.'
    )
