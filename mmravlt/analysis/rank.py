r"""Rank of what attention computes of its tokens: Figures 2, 4, 5, 8 of the paper.

Of every attention and every head, two matrices are looked at:

- ``kv_buffer``, d×d: what the features of the queries are multiplied with (the
  ``kv_buffer`` of :mod:`mmravlt.models.layers.attention`); softmax attention has none,
- ``output_features``, N×d for N tokens: what ``proj`` is given, so with everything that
  the attention adds to or multiplies with the mixed values.

Their singular values :math:`\sigma_1 \ge \sigma_2 \ge \dots` tell in how many
directions the rows differ. The paper says neither how it counts a rank nor which layer
and head it draws, so its figures can be repeated in kind only.
"""

import copy
import csv
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmravlt.models.layers import split_heads

if TYPE_CHECKING:
    from mmengine.config import Config

#: The matrices, by their names in tables, with those in figures.
MATRICES = {'kv_buffer': 'KV buffer', 'output_features': 'output features'}
#: The measures, by their names in tables, with those in figures.
MEASURES = {
    'rank': 'rank',
    'stable_rank': 'stable rank',
    'entropy': 'entropy (nats)',
    'effective_rank': 'effective rank',
}
#: Singular values above this share of the largest count for the rank.
THRESHOLD = 0.01
#: What stands for a checkpoint where a model has its initial weights.
UNTRAINED = 'untrained'


def singular_values(matrices: Tensor) -> Tensor:
    """Singular values in float64, largest first.

    Args:
        matrices (Tensor): shape (…, rows, columns), of any type and on any device.

    Returns:
        Tensor: shape (…, min(rows, columns)), float64, on the CPU.
    """
    return torch.linalg.svdvals(matrices.detach().cpu().double())


def measure(values: Tensor, threshold: float = THRESHOLD) -> dict[str, Tensor]:
    r"""Measures of rank from singular values; all are 0 for a matrix of zeros.

    - ``rank``: how many :math:`\sigma_i > \text{threshold} \cdot \sigma_1`.
    - ``stable_rank``: :math:`\lVert A \rVert_F^2 / \lVert A \rVert_2^2 =
      \sum_i \sigma_i^2 / \sigma_1^2` (Rudelson and Vershynin, 2007).
    - ``entropy``: :math:`H = -\sum_i p_i \ln p_i` with
      :math:`p_i = \sigma_i / \sum_j \sigma_j`, in nats (Roy and Vetterli, 2007).
    - ``effective_rank``: :math:`e^H` (Roy and Vetterli, 2007).

    Args:
        values (Tensor): singular values, shape (…, n), largest first. Zeros at the end
            change nothing.
        threshold (float): from 0 to below 1.

    Returns:
        dict[str, Tensor]: for each of :data:`MEASURES`, shape (…), float64.

    Raises:
        ValueError: if the threshold is out of range.
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f'threshold is {threshold}; give a share of the largest singular value, '
            'from 0 to below 1, such as 0.01.'
        )
    values = values.double()
    tiny = torch.finfo(values.dtype).tiny
    largest = values[..., :1]
    shares = values / values.sum(dim=-1, keepdim=True).clamp(min=tiny)
    entropy = torch.special.entr(shares).sum(dim=-1)
    return dict(
        rank=(values > threshold * largest).sum(dim=-1).double(),
        stable_rank=(values / largest.clamp(min=tiny)).square().sum(dim=-1),
        entropy=entropy,
        effective_rank=entropy.exp() * (largest[..., 0] > 0),
    )


@dataclass(frozen=True)
class Sample:
    """A matrix of every head that an attention computed.

    Attributes:
        module (str): path of the attention in the model.
        matrix (str): one of :data:`MATRICES`.
        values (Tensor): shape (B, heads, rows, d).
    """

    module: str
    matrix: str
    values: Tensor


@contextmanager
def record(model: nn.Module) -> Iterator[list[Sample]]:
    """Record the matrices of every attention in a model while it runs.

    These are every module with ``first_conv``, ``kv_buffer``, ``proj`` and
    ``num_heads``, as :mod:`mmravlt.models.layers.attention` defines them, and every one
    with ``qkv``, ``proj`` and ``num_heads``, as mmpretrain's DeiT and Swin have them,
    which has no KV buffer. Attention within windows gives matrices of each window.

    Forward hooks record, and are gone afterwards. While they are there, convolutions
    run step by step instead of fused, which changes results by rounding only.

    Args:
        model (nn.Module): any model, or an attention.

    Yields:
        list[Sample]: grows with every attention that runs.

    Raises:
        ValueError: if there is no attention in the model.
    """
    found = {n: m for n, m in model.named_modules() if _is_known(m)}
    if not found:
        raise ValueError(
            f'The {type(model).__name__} has no attention that is known here; give a '
            'model with a RAVLT, an L2ViT, a VisionTransformer or SwinTransformer of '
            'mmpretrain, or with attention replaced by with_attention.'
        )
    samples = []
    handles = []
    try:
        for name, attention in found.items():
            handles += _Watch(name, attention, samples).register()
        yield samples
    finally:
        for handle in handles:
            handle.remove()


def _has_buffer(module: nn.Module) -> bool:
    return hasattr(module, 'kv_buffer') and hasattr(module, 'first_conv')


def _is_known(module: nn.Module) -> bool:
    has_ends = hasattr(module, 'proj') and hasattr(module, 'num_heads')
    return has_ends and (_has_buffer(module) or hasattr(module, 'qkv'))


class _Watch:
    """The hooks of one attention, which know of each other's tensors."""

    def __init__(self, name: str, attention: nn.Module, samples: list[Sample]) -> None:
        self.name = name
        self.attention = attention
        self.samples = samples

    def register(self) -> list:
        """Add the hooks, and return what removes them."""
        attention = self.attention
        handles = [attention.proj.register_forward_pre_hook(self.keep_features)]
        if _has_buffer(attention):
            handles += [
                attention.register_forward_pre_hook(self.keep_table, with_kwargs=True),
                attention.first_conv.register_forward_hook(self.keep_buffer),
            ]
        return handles

    def keep_table(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        self.table = bound.arguments.get('table')  # not all kinds have one

    def keep_buffer(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        output = _as_map(output, module)
        parts = output.split(_as_map(args[0], module).shape[1], dim=1)[:3]
        q, k, v = (split_heads(part, self.attention.num_heads) for part in parts)
        buffer = self.attention.kv_buffer(q, k, v, self.table)
        if buffer is not None:
            self.samples.append(Sample(self.name, 'kv_buffer', buffer.detach()))

    def keep_features(self, module: nn.Module, args: tuple) -> None:
        features = _as_map(args[0].detach(), module)
        features = split_heads(features, self.attention.num_heads)
        self.samples.append(Sample(self.name, 'output_features', features))


def _as_map(x: Tensor, layer: nn.Module) -> Tensor:
    """(B, C, H, W), as which tokens (B, N, C) have a width of 1."""
    if isinstance(layer, nn.Linear):  # works on the last axis
        x = x.movedim(-1, 1)
    return x.unsqueeze(-1) if x.ndim == 3 else x


@dataclass
class Spectra:
    """Singular values of one matrix of one attention, in all images.

    Attributes:
        values (Tensor): shape (images or windows, heads, d), float64, largest first;
            zeros stand for those that a matrix of fewer than d tokens does not have.
        tokens (Tensor): N of each image or window.
        example (Tensor): the matrices of the first image, (heads, rows, d), float32.
    """

    values: Tensor
    tokens: Tensor
    example: Tensor

    @property
    def head_dim(self) -> int:
        """Channels of a head, d."""
        return self.values.shape[-1]


@dataclass
class Analysis:
    """What was recorded of one model.

    Attributes:
        model (str): its name.
        weights (str): where its weights are from, or :data:`UNTRAINED`.
        modules (list[str]): paths of its attentions. The first is layer 1.
        spectra (dict): :class:`Spectra` by layer and matrix, such as
            ``(1, 'kv_buffer')``; None is there of a matrix that a layer does not have.
        images (int): how many.
    """

    model: str
    weights: str
    modules: list[str]
    spectra: dict[tuple[int, str], Spectra] = field(default_factory=dict)
    images: int = 0

    def layers(self, matrix: str) -> list[int]:
        """The layers that have a matrix."""
        return sorted(layer for layer, name in self.spectra if name == matrix)


def analyze(
    model: nn.Module,
    inputs: Iterable[Tensor],
    name: str = '',
    weights: str = UNTRAINED,
) -> Analysis:
    """Record the singular values of a model's matrices in some images.

    The model is as before afterwards: no hooks, each part in its training or eval mode.

    Args:
        model (nn.Module): a classifier, detector or segmentor, of which backbone and
            neck run (its ``extract_feat``), or a backbone.
        inputs (Iterable[Tensor]): images as the backbone takes them, (B, 3, H, W).
        name (str): for the result.
        weights (str): for the result.

    Returns:
        Analysis: one item in the order of ``inputs`` for each image.

    Raises:
        ValueError: if there is no attention in the model, no image, or a matrix has
            values that are not finite.
    """
    found, examples, images = {}, {}, 0
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in inputs:
            with record(model) as samples, torch.no_grad():
                getattr(model, 'extract_feat', model)(batch)
            images += len(batch)
            tokens = {
                sample.module: sample.values.shape[-2]
                for sample in samples
                if sample.matrix == 'output_features'
            }
            for sample in samples:
                key = sample.module, sample.matrix
                values = _padded_singular_values(sample)
                found.setdefault(key, []).append((values, tokens[sample.module]))
                examples.setdefault(key, sample.values[0].float().cpu())
    finally:
        for module, training in modes.items():
            module.training = training
    if not found:
        raise ValueError('There are no images to analyse; give at least one.')
    modules = list(dict.fromkeys(module for module, _ in found))
    result = Analysis(name, weights, modules, images=images)
    for (module, matrix), items in found.items():
        counts = [n for values, n in items for _ in values]
        result.spectra[modules.index(module) + 1, matrix] = Spectra(
            torch.cat([values for values, _ in items]),
            torch.tensor(counts, dtype=torch.float64),
            examples[module, matrix],
        )
    return result


def _padded_singular_values(sample: Sample) -> Tensor:
    if not sample.values.isfinite().all():
        raise ValueError(
            f'The {MATRICES[sample.matrix]} of {sample.module} has values that are not '
            'finite, so it has no rank; check the weights.'
        )
    values = singular_values(sample.values)
    missing = sample.values.shape[-1] - values.shape[-1]
    return nn.functional.pad(values, (0, missing))


def table(analyses: Iterable[Analysis], threshold: float = THRESHOLD) -> list[dict]:
    """The measures of every layer, matrix and head.

    Args:
        analyses (Iterable[Analysis]): of any models.
        threshold (float): as for :func:`measure`.

    Returns:
        list[dict]: rows with ``model``, ``weights``, ``layer`` and ``head`` (both count
        from 1), ``module`` (path in the model), ``matrix``, ``images`` (how many;
        of attention within windows, each window counts as one),
        ``tokens`` (mean N), ``d``, ``full_rank`` (d, or the mean of min(N, d) if it is
        of the output features), and ``…_mean`` and ``…_std`` over the images of each of
        :data:`MEASURES`. The standard deviation divides by the number of images.
    """
    return [row for analysis in analyses for row in _rows_of_model(analysis, threshold)]


def _rows_of_model(analysis: Analysis, threshold: float) -> Iterator[dict]:
    order = list(MATRICES)
    keys = sorted(analysis.spectra, key=lambda key: (key[0], order.index(key[1])))
    for layer, matrix in keys:
        spectra = analysis.spectra[layer, matrix]
        measured = measure(spectra.values, threshold)
        for head in range(spectra.values.shape[1]):
            row = dict(
                model=analysis.model,
                weights=analysis.weights,
                layer=layer,
                module=analysis.modules[layer - 1],
                head=head + 1,
                matrix=matrix,
                images=len(spectra.values),
                tokens=spectra.tokens.mean().item(),
                d=spectra.head_dim,
                full_rank=full_rank(spectra, matrix),
            )
            for name, values in measured.items():
                row[f'{name}_mean'] = values[:, head].mean().item()
                row[f'{name}_std'] = values[:, head].std(correction=0).item()
            yield row


def full_rank(spectra: Spectra, matrix: str) -> float:
    """d of a KV buffer; of output features min(N, d), on average over the images."""
    if matrix == 'kv_buffer':
        return float(spectra.head_dim)
    return spectra.tokens.clamp(max=spectra.head_dim).mean().item()


def write_csv(rows: Sequence[dict], path: Path) -> None:
    """Write rows of :func:`table` with at most six digits for each number."""
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f'{v:.6g}' if isinstance(v, float) else v for k, v in row.items()}
            )


def build_model(cfg: 'Config', checkpoint: str | None, seed: int = 0) -> nn.Module:
    """Build a config's model on the CPU, with the weights of a file or initial ones.

    Args:
        cfg (Config): a whole config of mmdet, mmseg or mmpretrain; changed where this
            machine needs it, see :func:`mmravlt.openmmlab.device.adapt_to_device`.
        checkpoint (str | None): file or address. None leaves the model untrained: no
            weights are loaded that the config names as ``Pretrained`` either.
        seed (int): of the initial weights.

    Returns:
        nn.Module: in eval mode.

    Raises:
        CheckpointError: if the file cannot be read, or lacks weights of a RAVLT.
        FileNotFoundError: if there is no such file.
    """
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.runner import load_checkpoint

    from mmravlt.custom_data.common import dicts, type_name
    from mmravlt.openmmlab.device import adapt_to_device
    from mmravlt.openmmlab.weight_remapping import needs_all_weights

    scope = cfg.default_scope
    import_module(f'{scope}.models')
    cfg.optim_wrapper = None  # nothing is trained, so nothing is said about fp16
    adapt_to_device(cfg)
    settings = copy.deepcopy(cfg.model)
    if 'data_preprocessor' not in settings and cfg.get('data_preprocessor'):
        settings.data_preprocessor = cfg.data_preprocessor
    for node in dicts(settings):
        if any(type_name(x) == 'Pretrained' for x in dicts(node.get('init_cfg'))):
            node['init_cfg'] = None
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
        if checkpoint is None:
            model.init_weights()
    if checkpoint is not None:
        with needs_all_weights():
            load_checkpoint(model, checkpoint, 'cpu')
    return model.eval()


def choose_images(folder: Path, count: int) -> list[Path]:
    """Choose images of a folder, evenly spread in the order of their paths.

    Args:
        folder (Path): a folder of images, with or without subfolders; or one of data
            for training, of which those for validation are taken: from ``images`` if it
            is there, and in that from ``val…``.
        count (int): how many at most.

    Returns:
        list[Path]: the images.

    Raises:
        DataError: if there is no such folder, no image in it, or one cannot be read.
    """
    from mmravlt.custom_data.common import (
        IMAGE_SUFFIXES,
        DataError,
        image_size,
        list_files,
        need_folder,
    )

    need_folder(folder)
    if (folder / 'images').is_dir():
        folder = folder / 'images'
    validation = sorted(
        p
        for p in folder.glob('val*')
        if p.is_dir() and re.fullmatch(r'val(idation|\d*)', p.name)
    )
    folder = validation[0] if validation else folder
    names = list_files(folder, IMAGE_SUFFIXES)
    if not names:
        raise DataError(
            f'the folder {folder} has no images ({", ".join(IMAGE_SUFFIXES)}) in it; '
            'give a folder with some.'
        )
    count = min(count, len(names))
    chosen = [folder / names[i * len(names) // count] for i in range(count)]
    for path in chosen:
        image_size(path)
    return chosen


def read_images(cfg: 'Config', model: nn.Module, paths: Sequence[Path]) -> Iterator:
    """Read images one by one as the model is tested with them.

    Args:
        cfg (Config): whose ``test_dataloader`` has the pipeline; what loads annotations
            is left out.
        model (nn.Module): built of it, whose ``data_preprocessor`` normalises and pads.
        paths (Sequence[Path]): of the images.

    Yields:
        Tensor: shape (1, 3, H, W), on the device of the model.
    """
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import DefaultScope

    from mmravlt.custom_data.common import innermost_dataset, type_name

    scope = cfg.default_scope
    import_module(f'{scope}.datasets')
    pipeline = innermost_dataset(cfg.test_dataloader.dataset).pipeline
    steps = [step for step in pipeline if 'Annotations' not in type_name(step)]
    with DefaultScope.overwrite_default_scope(scope):
        prepare = Compose(steps)
    for number, path in zip(itertools.count(), paths, strict=False):
        data = pseudo_collate([prepare(dict(img_path=str(path), img_id=number))])
        yield model.data_preprocessor(data, False)['inputs']
