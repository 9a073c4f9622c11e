"""A model optimised for inference computes the same, by rows or at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT

from .golden_fill import filled, make_input, relative_error

GOLDEN = sorted((Path(__file__).parent / 'data').glob('backbone_*.npz'))
KINDS = {'l': 'rala', 'v': 'softmax'}
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))


def build(arch, layout, seed=0, **kwargs):
    layout = tuple(KINDS[letter] for letter in layout)
    return filled(RAVLT(arch, layout, **kwargs).eval(), seed)


@pytest.mark.parametrize('memory_budget', [None, 0.01])
@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_outputs_equal_the_release(path, memory_budget):
    golden = np.load(path)
    meta = json.loads(str(golden['meta']))
    model = build(meta['arch'], meta['attention'], meta['seed'])
    outputs = optimize_for_inference(model, memory_budget)(
        make_input(meta['shape'], meta['seed'])
    )
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f'out{i}']) <= 5e-6


@pytest.mark.parametrize('memory_budget', [None, 0.1, 1e-6])
@pytest.mark.parametrize('layout', ['llvv', 'llll', 'vvvv'])
@pytest.mark.parametrize('shape', [(1, 1, 1), (2, 75, 109), (3, 33, 200), (0, 9, 9)])
def test_any_size_batch_and_budget_gives_the_models_maps(shape, layout, memory_budget):
    batch, height, width = shape
    model = build(TINY, layout)
    images = make_input((batch, 3, height, width))
    with torch.no_grad():
        expected = model(images)
    outputs = optimize_for_inference(model, memory_budget)(images)
    for output, map_ in zip(outputs, expected, strict=True):
        assert output.shape == map_.shape
        assert batch == 0 or relative_error(output, map_) <= 1e-5


@pytest.mark.parametrize('memory_budget', [None, 0.01])
def test_some_maps_without_their_normalisation(memory_budget):
    model = build(TINY, 'llvv', out_indices=(0, 2), output_norm=False)
    images = make_input((1, 3, 64, 96))
    with torch.no_grad():
        expected = model(images)
    outputs = optimize_for_inference(model, memory_budget)(images)
    for output, map_ in zip(outputs, expected, strict=True):
        assert relative_error(output, map_) <= 1e-5


@pytest.mark.parametrize('memory_budget', [None, 0.01])
def test_half_precision_costs_only_its_own_rounding(memory_budget):
    model = build(TINY, 'llvv')
    images = make_input((1, 3, 64, 96))
    with torch.no_grad():
        expected = model(images)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs = optimize_for_inference(model, memory_budget)(images)
    for output, map_ in zip(outputs, expected, strict=True):
        assert output.dtype == map_.dtype
        assert relative_error(output, map_) <= 8e-2


def test_the_backbone_of_a_model_is_replaced_in_place():
    holder = nn.ModuleDict({'backbone': build(TINY, 'llvv')})
    images = make_input((1, 3, 64, 64))
    with torch.no_grad():
        expected = holder['backbone'](images)
    assert optimize_for_inference(holder) is holder
    assert not isinstance(holder['backbone'], RAVLT)
    for output, map_ in zip(holder['backbone'](images), expected, strict=True):
        assert relative_error(output, map_) <= 1e-5


class Doubled(RAVLT):
    def forward(self, x):
        return tuple(2 * output for output in super().forward(x))


def test_what_would_go_wrong_later_is_refused():
    with pytest.raises(ValueError, match='Linear holds no RAVLT'):
        optimize_for_inference(nn.Linear(2, 2))
    for budget in (0, -1, '12', True, float('inf'), float('nan')):
        with pytest.raises(ValueError, match='memory_budget'):
            optimize_for_inference(RAVLT(TINY), budget)
    model = RAVLT(TINY)
    model.layers[1].blocks[0].ffn.fc2.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match='what was added to ffn.fc2'):
        optimize_for_inference(model)
    with pytest.raises(ValueError, match='Doubled has its own'):
        optimize_for_inference(Doubled(TINY))
    model = optimize_for_inference(RAVLT(TINY))
    with pytest.raises(RuntimeError, match='cannot be trained'):
        model.train()
    with pytest.raises(RuntimeError, match='save the model before'):
        model.state_dict()
    with pytest.raises(RuntimeError, match='load them before'):
        model.load_state_dict({})
