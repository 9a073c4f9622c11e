"""The configs of Table 8 are the models of its rows."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample

import mmravlt
from mmravlt import config_path
from mmravlt.analysis.flops import measure, total
from mmravlt.models import GlobalAttention
from mmravlt.openmmlab.device import adapt_to_device
from mmravlt.registry import ATTENTIONS

from . import recipes
from .quick_init import quick_init

PAGE = Path(mmravlt.__file__).parents[1] / 'docs/attention_zoo.md'
ALL = ['softmax', 'hydra', 'efficient', 'linear_angular', 'enhanced', 'focused', 'rala']
ROWS = dict(deit_t=ALL, swin_t=ALL, swin_s=['softmax', 'focused', 'rala'])
LEAVES = [f'{model}_{kind}_in1k' for model, kinds in ROWS.items() for kind in kinds]
# Parameters (M) of the plain models, and FLOPs (G) as the paper prints them.
PLAIN = dict(deit_t=(5.72, 1.1), swin_t=(28.29, 4.5), swin_s=(49.61, 8.7))
BLOCKS = dict(deit_t=12, swin_t=12, swin_s=24)


def read(leaf):
    return recipes.read(f'mmpretrain/zoo/{leaf}')


def split(leaf):
    model = leaf[: len('deit_t')]
    return model, leaf[len(model) + 1 : -len('_in1k')]


def build(cfg):
    with quick_init():
        return recipes.build(cfg, 'cpu')


def test_there_is_a_config_for_every_row():
    folder = Path(config_path(f'mmpretrain/zoo/{LEAVES[0]}.py')).parent
    assert sorted(p.stem for p in folder.glob('*.py')) == sorted(LEAVES)


@pytest.mark.parametrize('leaf', LEAVES)
def test_every_row_costs_what_its_plain_model_and_the_page_say(leaf):
    model, kind = split(leaf)
    params, flops = PLAIN[model]
    with quick_init():
        cost = total(measure(read(leaf)))
    name = dict(deit_t='DeiT-T', swin_t='Swin-T', swin_s='Swin-S')[model]
    figures = cost.params / 1e6, cost.layers / 1e9, cost.full / 1e9
    cells = ' *'.join([f'{name}, `{kind}`', *(f'[|] *{x:.2f}' for x in figures)])
    assert re.search(cells, PAGE.read_text())
    # 'enhanced' differs most, by 26 weights for each channel.
    assert cost.params / 1e6 == pytest.approx(params, abs=0.1)
    # The paper's figure for DeiT-T is without, that for Swin with attention products.
    counted = cost.layers if model == 'deit_t' else cost.full
    assert counted / 1e9 == pytest.approx(flops, abs=0.14)


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_leaf_says_its_kind(leaf):
    model, kind = split(leaf)
    backbone = read(leaf).model.backbone
    assert backbone.get('kind', 'softmax') == kind
    assert (backbone.type == 'WithGlobalAttention') == (kind != 'softmax')


@pytest.mark.parametrize('leaf', [f'{m}_{k}_in1k' for m in ROWS for k in ROWS[m][-2:]])
def test_every_block_has_the_attention_of_its_row(leaf):
    model, kind = split(leaf)
    backbone = build(read(leaf)).backbone
    found = [m.attention for m in backbone.modules() if isinstance(m, GlobalAttention)]
    assert [type(m) for m in found] == [ATTENTIONS.get(kind)] * BLOCKS[model]
    ratios = {
        m.feedforward_channels / m.embed_dims
        for m in backbone.modules()
        if hasattr(m, 'feedforward_channels')
    }
    assert ratios == {3.5 if kind == 'rala' else 4}


@pytest.mark.parametrize(
    'leaf', ['deit_t_focused_in1k', 'deit_t_softmax_in1k', 'swin_t_softmax_in1k']
)
def test_positions_and_scales_are_not_decayed(leaf):
    cfg = read(leaf)
    adapt_to_device(cfg)
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in model.named_parameters():
        places = ('pos_embed', 'cls_token', 'relative_position_bias_table')
        position = name.endswith(places)
        exempt = position or parameter.ndim == 1
        assert decay[id(parameter)] == (0 if exempt else 0.05), name


@pytest.mark.parametrize('leaf', ['deit_t_rala_in1k', 'swin_t_linear_angular_in1k'])
def test_a_model_predicts_and_trains_at_another_size(leaf):
    model = build(read(leaf))
    with quick_init():
        model.init_weights()
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    images = torch.randn(2, 3, 96, 64)
    losses = model(images, samples, mode='loss')
    losses['loss'].backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert losses['loss'].isfinite() and not missing
    assert model(images, samples, mode='predict')[0].pred_score.shape == (1000,)
