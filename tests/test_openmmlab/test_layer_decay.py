"""Learning rates fall towards the image, in every library, for every backbone."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from mmravlt import config_path
from mmravlt.models import RAVLT, L2ViT
from mmravlt.openmmlab.layer_decay import LayerDecayOptimWrapperConstructor

LR, DECAY, RATE = 1e-3, 0.05, 0.5
CONFIGS = [
    'mmdet/mask_rcnn_ravlt_t_1x.py',
    'mmdet/mask_rcnn_l2vit_t_1x.py',
    'mmseg/semantic_fpn_ravlt_t_1x.py',
    'mmpretrain/ravlt_t_in1k.py',
    'mmpretrain/l2vit_t_in1k.py',
]


def build(name, **backbone):
    cfg = Config.fromfile(config_path(name))
    cfg.model.backbone.update(init_cfg=None, **backbone)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model), cfg.optim_wrapper


def optimize(model, constructor='LayerDecayOptimWrapperConstructor', **paramwise_cfg):
    """Settings of each parameter by its name."""
    cfg = dict(
        optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
        constructor=constructor,
        paramwise_cfg={'layer_decay_rate': RATE, **paramwise_cfg},
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in groups for p in group['params']}


@pytest.mark.parametrize(
    'model,depths',
    [
        (
            RAVLT,
            {
                'patch_embed.proj.0.weight': 0,
                'layers.0.blocks.0.gamma_1': 1,
                'layers.0.blocks.1.attn.qkvo.bias': 2,
                'layers.0.downsample.norm.weight': 2,
                'layers.1.blocks.0.pos.weight': 3,
                'layers.2.blocks.5.ffn.fc1.weight': 10,
                'layers.3.blocks.1.norm1.norm.weight': 12,
                'extra_norms.0.norm.weight': 13,
            },
        ),
        (
            L2ViT,
            {
                'downsample_layers.0.proj.proj.0.weight': 0,
                'stages.0.0.cpe.0.proj.weight': 1,
                'stages.0.1.attn.temperature': 2,
                'downsample_layers.1.proj.weight': 3,
                'stages.1.0.norm1.weight': 3,
                'stages.3.1.mlp.fc2.bias': 12,
                'norm0.weight': 13,
            },
        ),
    ],
)
def test_depth_counts_the_blocks_between_the_image_and_a_parameter(model, depths):
    with torch.device('meta'):
        model = model('t')
    names = dict(model.named_parameters())
    for name, depth in depths.items():
        assert name in names
        assert model.get_layer_depth(name) == (depth, 14)
        assert model.get_layer_depth(f'a.{name}', 'a.') == (depth, 14)
        assert model.get_layer_depth(name, 'a.') == (13, 14)
    found = {model.get_layer_depth(name)[0] for name in names}
    assert found == set(range(14))


def test_stages_that_are_not_built_do_not_count():
    with torch.device('meta'):
        model = RAVLT('t', out_indices=(1,))
    assert model.get_layer_depth('layers.1.blocks.1.gamma_1') == (4, 6)


@pytest.mark.parametrize('name', CONFIGS)
def test_learning_rates_of_a_model_fall_with_its_backbones_depth(name):
    model, _ = build(name)
    settings = optimize(model)
    assert settings.keys() == dict(model.named_parameters()).keys()
    for parameter, group in settings.items():
        depth = 13
        if parameter.startswith('backbone.'):
            depth, _ = model.backbone.get_layer_depth(parameter, 'backbone.')
        assert group['lr'] == pytest.approx(LR * RATE ** (13 - depth)), parameter
        assert group['weight_decay'] == DECAY
    assert min(group['lr'] for group in settings.values()) == pytest.approx(LR / 2**13)


@pytest.mark.parametrize('name', [c for c in CONFIGS if c.startswith('mmpretrain')])
def test_classifiers_learn_as_with_the_constructor_of_mmpretrain(name):
    model, optim_wrapper = build(name)
    options = optim_wrapper.paramwise_cfg.to_dict()
    options['custom_keys'] = {'head': dict(decay_mult=2.0)}
    ours = optimize(model, **options)
    theirs = optimize(model, LearningRateDecayOptimWrapperConstructor, **options)
    assert ours.keys() == theirs.keys()
    for parameter, group in ours.items():
        for key in ('lr', 'weight_decay'):
            assert group[key] == pytest.approx(theirs[parameter][key]), parameter


@pytest.mark.parametrize(
    'name', ['mmdet/mask_rcnn_ravlt_t_1x.py', 'mmdet/cascade_mask_rcnn_ravlt_s_3x.py']
)
def test_rules_of_the_recipe_keep_counting(name):
    model, optim_wrapper = build(name)
    options = optim_wrapper.paramwise_cfg.to_dict()
    options.setdefault('custom_keys', {})['rpn_head'] = dict(lr_mult=3.0)
    plain = optimize(model, 'DefaultOptimWrapperConstructor', **options)
    decayed = optimize(model, **options)
    for parameter, group in decayed.items():
        depth, depths = model.backbone.get_layer_depth(parameter, 'backbone.')
        factor = RATE ** (depths - 1 - depth)
        assert group['lr'] == pytest.approx(plain[parameter]['lr'] * factor)
        assert group['weight_decay'] == plain[parameter]['weight_decay']
    assert decayed['rpn_head.rpn_conv.bias']['lr'] == pytest.approx(3 * LR)
    assert decayed['backbone.extra_norms.0.norm.bias']['weight_decay'] == 0


def test_frozen_parameters_are_left_out_and_wrappers_are_seen_through():
    model, _ = build('mmpretrain/ravlt_t_in1k.py', frozen_stages=1)
    cfg = dict(optimizer=dict(type='SGD', lr=LR))
    constructor = LayerDecayOptimWrapperConstructor(cfg, dict(layer_decay_rate=RATE))
    wrapper = (
        nn.Module()
    )  # DistributedDataParallel, whose processes are not needed here
    wrapper.module = model
    groups = constructor(wrapper).optimizer.param_groups
    given = {p for group in groups for p in group['params']}
    assert given == {p for p in model.parameters() if p.requires_grad}
    assert len(given) < len(list(model.parameters()))


@pytest.mark.parametrize(
    'paramwise_cfg,optimizer,said',
    [
        (None, {}, 'layer_decay_rate in paramwise_cfg is None; give'),
        (dict(norm_decay_mult=0.0), {}, 'layer_decay_rate .* is None; give'),
        (dict(layer_decay_rate=1.5), {}, 'is 1.5; give a number above 0'),
        (dict(layer_decay_rate='0.9'), {}, "is '0.9'; give a number above 0"),
        (dict(layer_decay_rate=0.9), dict(lr=None), 'has no lr, which'),
    ],
)
def test_bad_options_are_refused_with_one_sentence(paramwise_cfg, optimizer, said):
    cfg = dict(optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY) | optimizer)
    with pytest.raises(ValueError, match=said) as caught:
        LayerDecayOptimWrapperConstructor(cfg, copy.deepcopy(paramwise_cfg))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('backbone', [None, nn.Conv2d(1, 1, 1)])
def test_a_backbone_that_does_not_tell_depths_is_refused(backbone):
    model = nn.Module()
    model.backbone, model.head = backbone, nn.Linear(1, 1)
    with pytest.raises(ValueError, match='The Module has no backbone that tells'):
        optimize(model)
