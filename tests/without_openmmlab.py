"""Tests for an environment without OpenMMLab, which test_torch_alone.py makes."""

import importlib
import sys

import pytest
import torch

import mmravlt
from mmravlt.models import RAVLT, Classifier, GlobalAttention, L2ViT, RAVLTNeck
from mmravlt.registry import ATTENTIONS

from .golden_fill import make_input, relative_error

TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4))


def test_nothing_of_openmmlab_can_be_imported():
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    others = {n.split('.')[0] for n in sys.modules if n.startswith('mm')}
    assert others <= {'mmravlt', 'mmap'}


@pytest.mark.parametrize('backbone', [RAVLT, L2ViT])
def test_every_parameter_learns_with_stochastic_depth(backbone):
    model = backbone(TINY, drop_path_rate=0.1, norm_cfg=dict(type='BN', momentum=0.2))
    classifier = Classifier(model, RAVLTNeck(32, 16), 5, 16)
    # the output norms of the first stages have no part in a classifier
    loss = sum(each.square().mean() for each in model(torch.randn(8, 3, 33, 70)))
    (loss + classifier(torch.randn(8, 3, 32, 32)).square().mean()).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize('kind', sorted(ATTENTIONS.module_dict))
def test_every_kind_of_attention_runs(kind):
    assert GlobalAttention(16, 2, kind)(torch.randn(1, 16, 3, 5)).shape == (1, 16, 3, 5)


def test_optimized_backbone_computes_the_same():
    model = RAVLT(TINY).eval()
    x = make_input((1, 3, 40, 56))
    with torch.no_grad():
        optimized = mmravlt.optimize_for_inference(model)(x)
        for mine, expected in zip(optimized, model(x), strict=True):
            assert relative_error(mine, expected) < 1e-4


def test_an_init_cfg_that_only_mmengine_knows_is_refused():
    for init_cfg in (dict(type='Kaiming'), [dict(type='Constant', val=0)]):
        with pytest.raises(ValueError, match=r'without MMEngine, give dict\(type='):
            RAVLT(TINY, init_cfg=init_cfg)


def test_a_model_of_another_library_is_refused():
    from mmravlt.models import with_attention

    with pytest.raises(ImportError, match="'SwinTransformer'.*MMEngine is not instal"):
        with_attention(dict(type='SwinTransformer'), 'focused')


def test_flops_and_ranks_are_measured():
    from mmravlt.analysis.flops import count_multiply_adds
    from mmravlt.analysis.rank import measure, singular_values

    with torch.device('meta'):
        model = mmravlt.create_model('ravlt_t', num_classes=1000).eval()
        x = torch.empty(1, 3, 224, 224)
    _, layers, full = count_multiply_adds(lambda: model(x))
    assert (round(layers / 1e9, 2), round(full / 1e9, 2)) == (2.41, 2.63)
    assert measure(singular_values(torch.eye(3)))['rank'] == 3


def test_configs_are_found():
    assert mmravlt.config_path('mmdet/mask_rcnn_ravlt_t_1x.py').endswith('t_1x.py')
