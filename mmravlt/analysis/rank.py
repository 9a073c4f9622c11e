r"""Rank of what attention computes of its tokens: Figures 2, 4, 5, 8 of the paper.

Of every attention, these matrices are looked at, the first two of every head:

- ``kv_buffer``, d×d: what the features of the queries are multiplied with (the
  ``kv_buffer`` of :mod:`mmravlt.models.layers.attention`); softmax attention has none,
- ``output_features``, N×d for N tokens: what ``proj`` is given, so with everything that
  the attention adds to or multiplies with the mixed values,
- ``output_map``, N×C: the same of all heads side by side, C = heads · d channels.

Their singular values :math:`\sigma_1 \ge \sigma_2 \ge \dots` tell in how many
directions the rows differ. The paper says neither how it counts a rank nor which layer
and head it draws, so its figures can be repeated in kind only.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .rank_hooks import ALL_HEADS, MATRICES, Sample, record
from .rank_measures import MEASURES, THRESHOLD, measure, singular_values

__all__ = [
    'ALL_HEADS',
    'Analysis',
    'MATRICES',
    'MEASURES',
    'Sample',
    'Spectra',
    'THRESHOLD',
    'UNTRAINED',
    'analyze',
    'full_rank',
    'measure',
    'record',
    'singular_values',
    'table',
    'write_csv',
]

#: What stands for a checkpoint where a model has its initial weights.
UNTRAINED = 'untrained'


def __getattr__(name: str) -> Any:
    """What reads configs and images, which needs OpenMMLab, is found here too."""
    if name in ('build_model', 'choose_images', 'read_images'):
        from . import rank_inputs

        return getattr(rank_inputs, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


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
        """Channels of a head, d; of all heads, C."""
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
        from 1; 'all' of all heads together), ``module`` (path in the model),
        ``matrix``, ``images`` (how many; of attention within windows, each window
        counts as one), ``tokens`` (mean N), ``d`` (columns of the matrix),
        ``full_rank`` (d, or the mean of min(N, d) if it is of the output), and
        ``…_mean`` and ``…_std`` over the images of each of :data:`MEASURES`. The
        standard deviation divides by the number of images.
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
                head='all' if matrix == ALL_HEADS else head + 1,
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
    """d of a KV buffer; of the output min(N, d), on average over the images."""
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
