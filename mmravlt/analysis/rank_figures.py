"""Figures of the rank analysis, like Figures 2, 4, 5 and 8 of the paper."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .rank import (
    ALL_HEADS,
    MATRICES,
    MEASURES,
    THRESHOLD,
    Analysis,
    full_rank,
    measure,
    singular_values,
)

DPI = 110
# Images of matrices are at most this many times as high as they are wide.
_TALLEST = 2


def draw(
    analyses: Sequence[Analysis],
    folder: Path,
    threshold: float = THRESHOLD,
    layer: int | None = None,
) -> list[Path]:
    """Draw all figures.

    Args:
        analyses (Sequence[Analysis]): of one or more models.
        folder (Path): where they go; it must exist.
        threshold (float): as for :func:`mmravlt.analysis.rank.measure`.
        layer (int | None): whose matrices are drawn. None takes the middle one of
            each model's layers that have a KV buffer; of all layers, if none has.

    Returns:
        list[Path]: ``ranks.png``, ``spectra.png`` and ``matrices.png``.

    Raises:
        ValueError: if a model has no such layer.
    """
    matrices = draw_matrices(analyses, threshold, layer)  # may refuse the layer
    figures = {
        'ranks.png': draw_ranks(analyses, threshold),
        'spectra.png': draw_spectra(analyses, threshold),
        'matrices.png': matrices,
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / name)
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def draw_ranks(analyses: Sequence[Analysis], threshold: float = THRESHOLD) -> Figure:
    """Draw each measure against the layer, averaged over heads and images.

    Args:
        analyses (Sequence[Analysis]): of one or more models, a line for each.
        threshold (float): as for :func:`mmravlt.analysis.rank.measure`.
    """
    names = [name for name in MEASURES if name != 'entropy']  # e^H is drawn
    height = 2.6 * len(names) + 0.25 * len(analyses)
    figure = Figure(figsize=(16, height), layout='constrained')
    axes = figure.subplots(len(names), len(MATRICES), sharex=True, squeeze=False)
    for column, (matrix, title) in enumerate(MATRICES.items()):
        for number, analysis in enumerate(analyses):
            layers = analysis.layers(matrix)
            spectra = [analysis.spectra[layer, matrix] for layer in layers]
            measured = [measure(s.values, threshold) for s in spectra]
            for axis, name in zip(axes[:, column], names, strict=True):
                axis.plot(
                    layers,
                    [values[name].mean().item() for values in measured],
                    marker='.',
                    color=f'C{number % 10}',
                    linestyle='--' if number >= 10 else '-',
                    label=label(analysis, analyses),
                )
            axes[0, column].plot(
                layers, [full_rank(s, matrix) for s in spectra], ':', color='grey'
            )
        axes[0, column].set_title(f'{title} (dotted: full rank)')
        axes[-1, column].set_xlabel('layer')
        if not any(analysis.layers(matrix) for analysis in analyses):
            axes[0, column].set_title(f'{title}: none, all attention is softmax')
    for row, name in zip(axes, names, strict=True):
        counted = f', σ > {threshold:g} σ₁' if name == 'rank' else ''
        row[0].set_ylabel(MEASURES[name] + counted)
        for axis in row:
            axis.set_ylim(0, 1.05 * max(axis.dataLim.ymax, 1))
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=True)
    lines = axes[0, 1].get_legend_handles_labels()
    figure.legend(*lines, loc='outside lower center', ncols=2)
    figure.suptitle(f'Rank: {_conditions(analyses)}')
    return figure


def draw_spectra(analyses: Sequence[Analysis], threshold: float = THRESHOLD) -> Figure:
    """Draw the singular values of every layer, relative to the largest.

    Args:
        analyses (Sequence[Analysis]): of one or more models, a row for each.
        threshold (float): where a line is drawn.
    """
    figure = Figure(figsize=(16, 0.6 + 2.6 * len(analyses)), layout='constrained')
    axes = figure.subplots(
        len(analyses), len(MATRICES), sharex=True, sharey=True, squeeze=False
    )
    for row, analysis in zip(axes, analyses, strict=True):
        total = len(analysis.modules)
        for axis, (matrix, title) in zip(row, MATRICES.items(), strict=True):
            for layer in analysis.layers(matrix):
                values = analysis.spectra[layer, matrix].values
                relative = values / values[..., :1].clamp(min=torch.finfo().tiny)
                mean = relative.mean(dim=(0, 1))
                colour = colormaps['viridis']((layer - 1) / max(total - 1, 1) * 0.9)
                number = range(1, len(mean) + 1)
                axis.plot(number, mean.numpy(), color=colour, label=f'{layer}')
            if not axis.lines:
                _say(axis, f'no {title}')
            axis.axhline(threshold, color='grey', linestyle=':')
            axis.set_yscale('log', nonpositive='mask')
            axis.set_ylim(1e-6, 1.5)
            axis.set_title(f'{label(analysis, analyses)}: {title}', fontsize=9)
            axis.grid(alpha=0.3)
        row[0].set_ylabel('σᵢ / σ₁')
        handles = row[-1].get_legend_handles_labels()
        row[-1].legend(
            *handles,
            title='layer',
            fontsize=7,
            ncols=1 + total // 9,
            loc='center left',
            bbox_to_anchor=(1, 0.5),
        )
    for axis in axes[-1]:
        axis.set_xlabel('i')
    figure.suptitle(
        f'Singular values: {_conditions(analyses)}; dotted: threshold {threshold:g}'
    )
    return figure


def draw_matrices(
    analyses: Sequence[Analysis],
    threshold: float = THRESHOLD,
    layer: int | None = None,
) -> Figure:
    """Draw the matrices of the first image, in the first head of a layer.

    Args:
        analyses (Sequence[Analysis]): of one or more models, a column for each.
        threshold (float): as for :func:`mmravlt.analysis.rank.measure`.
        layer (int | None): as for :func:`draw`.

    Raises:
        ValueError: if a model has no such layer.
    """
    chosen = [_chosen_layer(analysis, layer) for analysis in analyses]
    tall = [
        analysis.spectra[number, 'output_features'].example
        for analysis, number in zip(analyses, chosen, strict=True)
    ]
    ratios = [min(x.shape[1] / x.shape[2], _TALLEST) for x in tall]
    size = 2.2
    figure = Figure(
        figsize=(max(size * len(analyses), 4.5), size * (1.3 + max(ratios)) + 0.8),
        layout='constrained',
    )
    of_heads = {name: title for name, title in MATRICES.items() if name != ALL_HEADS}
    axes = figure.subplots(
        len(of_heads), len(analyses), squeeze=False, height_ratios=(1, max(ratios))
    )
    for column, (analysis, number) in enumerate(zip(analyses, chosen, strict=True)):
        for row, (matrix, title) in enumerate(of_heads.items()):
            axis = axes[row, column]
            axis.set(xticks=[], yticks=[], anchor='N')
            spectra = analysis.spectra.get((number, matrix))
            if spectra is None:
                axis.set(box_aspect=1)
                _say(axis, f'no {title}')
            else:
                _draw_matrix(axis, spectra.example[0], threshold)
            if column == 0:
                axis.set_ylabel(title)
        axes[0, column].set_title(
            f'{_wrapped(label(analysis, analyses))}\nlayer {number}', fontsize=9
        )
    figure.suptitle(f'Head 1, first image{_weights(analyses)}', fontsize=10)
    return figure


def _draw_matrix(axis: Axes, matrix: Tensor, threshold: float) -> None:
    rows, columns = matrix.shape
    # a few outliers would leave all the rest white
    limit = np.quantile(matrix.abs().numpy(), 0.99) or 1
    axis.imshow(matrix.numpy(), 'RdBu_r', aspect='auto', vmin=-limit, vmax=limit)
    axis.set_box_aspect(min(rows / columns, _TALLEST))
    rank = measure(singular_values(matrix), threshold)['rank']
    axis.set_xlabel(f'{rows}×{columns}, rank {rank:.0f}', fontsize=9)


def label(analysis: Analysis, analyses: Sequence[Analysis]) -> str:
    """A model's name, with its weights where models differ in them."""
    if _weights(analyses):
        return analysis.model
    return f'{analysis.model}, {Path(analysis.weights).name}'


def _conditions(analyses: Sequence[Analysis]) -> str:
    """What the mean is of, and the weights where they are the same."""
    images = max(analysis.images for analysis in analyses)
    return f'mean over heads and {images} images{_weights(analyses)}'


def _weights(analyses: Sequence[Analysis]) -> str:
    weights = {Path(analysis.weights).name for analysis in analyses}
    return f'; weights: {weights.pop()}' if len(weights) == 1 else ''


def _say(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha='center', va='center', transform=axis.transAxes)


def _wrapped(name: str) -> str:
    """A name in lines, broken at underscores too."""
    return textwrap.fill(name.replace('_', '_ '), 22).replace('_ ', '_')


def _chosen_layer(analysis: Analysis, layer: int | None) -> int:
    if layer is None:
        layers = analysis.layers('kv_buffer') or analysis.layers('output_features')
        return layers[len(layers) // 2]
    if layer not in analysis.layers('output_features'):
        raise ValueError(
            f'layer is {layer}, but {analysis.model} has {len(analysis.modules)} '
            'layers with attention; give the number of one of them.'
        )
    return layer
