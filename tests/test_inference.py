"""A model optimised for inference computes the same, by rows or at once."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal

from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT
from mmravlt.models.backbones.ravlt import Block, Stage
from mmravlt.models.layers import (
    FFN,
    Attention,
    Downsample,
    GELU2d,
    LayerNorm2d,
    PatchEmbed,
    RALAttention,
)

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
    images = make_input(meta['shape'], meta['seed'])
    outputs = optimize_for_inference(model, memory_budget)(images)
    with torch.no_grad():
        expected = model(images)
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f'out{i}']) <= 5e-6
        assert relative_error(output, expected[i]) <= 5e-6


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


# --- what folding would lose is refused ---

SMALL = dict(embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
LAYOUT = ('rala', 'softmax', 'rala', 'rala')


def small(**options):
    """Both kinds, all types of modules, and as few of them as possible."""
    options = dict(drop_path_rate=0.1, out_indices=(0, 1), **options)
    return filled(RAVLT(SMALL, LAYOUT, **options).eval())


NAMES = [name for name, _ in small().named_modules()]
# One module of each type; the name of a module says where it stands.
TYPES = {type(module): name for name, module in small().named_modules()}
HOOKS = [
    (f'{kind}_hook', options)
    for kind, options in [
        ('register_forward_pre', {}),
        ('register_forward', dict(with_kwargs=True)),
        ('register_forward', dict(always_call=True)),
        ('register_full_backward', {}),
        ('register_full_backward_pre', {}),
        ('register_backward', {}),
    ]
]


def assert_refused(model, name, what=''):
    named = rf'{re.escape(name) or "the backbone"}(\.\w+)* .*{what}'
    with pytest.raises(ValueError, match=f'{named}.*leave it out'):
        optimize_for_inference(model)


def assert_computed_right(model, tolerance=1e-5):
    dtype = next(model.parameters()).dtype
    images = make_input((1, 3, 40, 32)).to(dtype)
    with torch.no_grad():
        expected = model.eval()(images)
    for budget in (None, 0.01):
        outputs = optimize_for_inference(model, budget)(images)
        for output, map_ in zip(outputs, expected, strict=True):
            assert output.dtype == map_.dtype
            assert relative_error(output, map_) <= tolerance


def test_a_hook_on_any_module_is_refused_by_its_name():
    model = small()
    for name in NAMES:
        handle = model.get_submodule(name).register_forward_hook(lambda *_: None)
        assert_refused(model, name, 'hooks')
        handle.remove()
    assert_computed_right(model)


@pytest.mark.parametrize('register,options', HOOKS)
def test_every_kind_of_hook_is_refused(register, options):
    model = small()
    for name in TYPES.values():
        module = model.get_submodule(name)
        handle = getattr(module, register)(lambda *_: None, **options)
        assert_refused(model, name, 'hooks')
        handle.remove()
    assert_computed_right(model)


def test_a_subclass_of_any_type_is_refused():
    for cls, name in TYPES.items():
        model = small()
        module = model.get_submodule(name)
        module.__class__ = type('Other', (cls,), {})
        assert_refused(model, name if name else 'optimize_for_inference', 'Other')


def test_a_forward_method_patched_into_any_module_is_refused():
    model = small()
    for name in NAMES:
        module = model.get_submodule(name)
        module.forward = lambda *inputs: inputs[0]
        assert_refused(model, name, 'forward')
        del module.forward
    assert_computed_right(model)


@pytest.mark.parametrize('new', [nn.ReLU(), nn.Identity(), nn.GroupNorm(1, 8)])
def test_another_activation_or_norm_is_refused_anywhere(new):
    model = small()
    for name, module in list(model.named_modules()):
        if isinstance(module, (nn.GELU, LayerNorm2d, nn.LayerNorm, nn.BatchNorm2d)):
            model.set_submodule(name, new)
            assert_refused(model, name)
            model.set_submodule(name, module)
    assert_computed_right(model)


def add_lora(conv):
    conv.lora = nn.Conv2d(8, 8, 1)


CHANGES = {
    'parametrised': orthogonal,
    'weight norm': nn.utils.weight_norm,
    'spectral norm': nn.utils.spectral_norm,
    'pruned': lambda conv: prune.l1_unstructured(conv, 'weight', 0.5),
    'dilated': lambda conv: setattr(conv, 'dilation', (2, 2)),
    'strided': lambda conv: setattr(conv, 'stride', (2, 2)),
    'other padding': lambda conv: setattr(conv, 'padding_mode', 'reflect'),
    'other groups': lambda conv: setattr(conv, 'groups', 2),
    'without bias': lambda conv: setattr(conv, 'bias', None),
    'more channels': lambda conv: setattr(
        conv, 'weight', nn.Parameter(torch.ones(9, *conv.weight.shape[1:]))
    ),
    'adapter': add_lora,
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_convolution_is_refused_anywhere(change):
    for name in (
        'patch_embed.proj.3',
        'layers.0.blocks.0.pos',
        'layers.1.blocks.0.ffn.fc2',
    ):
        model = small()
        CHANGES[change](model.get_submodule(name))
        assert_refused(model, name)


@pytest.mark.parametrize(
    'name,attribute,value',
    [
        ('layers.0.blocks.0.attn', 'kappa', 'relu'),
        ('layers.0.blocks.0.attn', 'kv_augmentation', False),
        ('layers.1.blocks.0.attn', 'mix', lambda *_: None),
        ('layers.1.blocks.0.attn', 'num_heads', 2),
        ('layers.0.blocks.0.norm1.norm', 'eps', 1e-3),
        ('layers.0.blocks.0.ffn.act', 'approximate', 'tanh'),
        ('layers.0.RoPE', 'head_dim', 4),
        ('layers.0.blocks.0', 'pos', None),
        ('layers.0', 'blocks', nn.ModuleList()),
        ('patch_embed.proj', 'head', nn.Identity()),
        ('extra_norms', '2', nn.Identity()),
        ('', 'neck', nn.Identity()),
        ('', 'lay_out', lambda x: 2 * x),
    ],
)
def test_a_changed_option_or_part_is_refused(name, attribute, value):
    model = small()
    setattr(model.get_submodule(name), attribute, value)
    assert_refused(model, name)


def scaled(function):
    def compute(*args, **kwargs):
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(1.01 * each for each in result)
        return 1.01 * result

    return compute


# Layers whose forward both call; others the fast path states anew, in place or by rows.
SHARED = (RAVLT, Stage, GELU2d)
RESTATED = (Block, PatchEmbed, Downsample, Attention, FFN, LayerNorm2d)


@pytest.mark.parametrize('cls', [*SHARED, *RESTATED])
def test_a_forward_that_computes_something_else_never_goes_unnoticed(cls, monkeypatch):
    # Output norms would take the factor away again.
    model, images = small(output_norm=False), make_input((1, 3, 40, 32))
    fast = optimize_for_inference(model, 0.01)
    with torch.no_grad():
        *_, before = model(images)
        monkeypatch.setattr(cls, 'forward', scaled(cls.forward))
        *_, expected = model(images)
    assert relative_error(expected, before) > 1e-4
    assert (relative_error(fast(images)[-1], expected) <= 1e-5) == (cls in SHARED)
    with pytest.raises(ValueError, match='forward as it was .*replaced; leave it out'):
        optimize_for_inference(model)


def test_a_replaced_method_of_a_class_is_refused(monkeypatch):
    monkeypatch.setattr(RALAttention, 'mix', lambda self, q, k, v, rope: v)
    with pytest.raises(ValueError, match=r'RALAttention.mix as it was'):
        optimize_for_inference(small())


def test_hooks_for_all_modules_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ValueError, match='hooks for all modules'):
            optimize_for_inference(small())
    finally:
        handle.remove()


KEPT = {
    'synchronised': nn.SyncBatchNorm.convert_sync_batchnorm,
    'not synchronised any more': lambda model: revert_sync_batchnorm(
        small(norm_cfg=dict(type='SyncBN'))
    ),
    'other batch norms': lambda model: small(norm_cfg=dict(type='BN', eps=0.1)),
    'recomputing': lambda model: small(with_cp=True),
    'frozen': lambda model: small(frozen_stages=2),
    'in training': lambda model: model.train(),
    'float64': lambda model: model.double(),
    'named': lambda model: setattr(model.layers[0], 'depth', 3) or model,
    'layer replaced by an equal one': lambda model: (
        model.set_submodule('layers.0.blocks.0.ffn.fc2', nn.Conv2d(28, 8, 1)) or model
    ),
    'hook on its state dict': lambda model: (
        model._register_state_dict_hook(lambda *_: None) and model
    ),
}


@pytest.mark.parametrize('change', KEPT)
def test_what_changes_nothing_in_evaluation_is_computed_right(change):
    model = KEPT[change](small())
    if change == 'synchronised':  # which runs on a GPU only
        optimize_for_inference(model)
    else:
        assert_computed_right(model)


def test_weights_of_half_precision_cost_only_their_own_rounding():
    assert_computed_right(small().bfloat16(), tolerance=8e-2)


def test_another_number_of_channels_of_the_image_is_known():
    model = RAVLT(SMALL, in_channels=5).eval()
    assert len(optimize_for_inference(model)(make_input((1, 5, 33, 40)))) == 4


def test_what_would_go_wrong_later_is_refused():
    with pytest.raises(ValueError, match='Linear holds no RAVLT'):
        optimize_for_inference(nn.Linear(2, 2))
    for budget in (0, -1, '12', True, float('inf'), float('nan')):
        with pytest.raises(ValueError, match='memory_budget'):
            optimize_for_inference(RAVLT(TINY), budget)
    model = optimize_for_inference(RAVLT(TINY))
    with pytest.raises(RuntimeError, match='cannot be trained'):
        model.train()
    with pytest.raises(RuntimeError, match='save the model before'):
        model.state_dict()
    with pytest.raises(RuntimeError, match='load them before'):
        model.load_state_dict({})
