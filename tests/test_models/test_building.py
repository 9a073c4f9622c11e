"""Norms, stochastic depth and kinds behave as those of MMCV and MMEngine did."""

import pytest
import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath as MmcvDropPath
from mmengine.registry import MODELS, Registry
from torch import nn

from mmravlt.models import RAVLT
from mmravlt.models.layers import DropPath, build_batch_norm
from mmravlt.registry import ATTENTIONS


@pytest.mark.parametrize('shape', [(64, 3, 5, 7), (64, 2)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_drop_path_draws_what_mmcvs_draws(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    ours, theirs = DropPath(0.3), MmcvDropPath(0.3)
    assert repr(ours) == repr(theirs)
    torch.manual_seed(1)
    y = ours(x)
    torch.manual_seed(1)
    torch.testing.assert_close(y, theirs(x), rtol=0, atol=0)
    assert 0 < (y.flatten(1) == 0).all(1).sum() < 64
    assert ours.eval()(x) is x


@pytest.mark.parametrize(
    'norm_cfg',
    [
        dict(type='BN'),
        dict(type='BN2d', eps=1e-3),
        dict(type='SyncBN', momentum=0.01),
        dict(type='BN', requires_grad=False),
        dict(type='BN', affine=False, track_running_stats=False),
        dict(type=nn.BatchNorm2d),
    ],
)
def test_batch_norm_is_built_as_mmcv_builds_it(norm_cfg):
    before = dict(norm_cfg)
    ours, theirs = build_batch_norm(norm_cfg, 6), build_norm_layer(norm_cfg, 6)[1]
    assert repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    trained = [p.requires_grad for p in ours.parameters()]
    assert trained == [p.requires_grad for p in theirs.parameters()]
    assert norm_cfg == before


def test_a_registered_batch_norm_of_another_library_is_found():
    class Renorm(nn.BatchNorm2d):
        pass

    MODELS.register_module('Renorm', module=Renorm)
    try:
        model = RAVLT('t', out_indices=(0,), norm_cfg=dict(type='Renorm'))
    finally:
        MODELS.module_dict.pop('Renorm')
    assert type(model.patch_embed.proj[1]) is Renorm


@pytest.mark.parametrize(
    'norm_cfg', [dict(type='GN'), dict(type='BN', epsilon=1), {}, None, 'BN']
)
def test_other_norms_are_refused(norm_cfg):
    with pytest.raises(ValueError, match='norm_cfg is .*; give dict'):
        RAVLT('t', norm_cfg=norm_cfg)


@pytest.mark.parametrize('make', [lambda: Registry('kind'), type(ATTENTIONS)])
def test_kinds_have_the_interface_of_a_registry(make):
    kinds = make()

    @kinds.register_module()
    class One:
        pass

    @kinds.register_module('two')
    class Two:
        pass

    assert kinds.register_module(name='three', module=One) is One
    assert kinds.module_dict == dict(One=One, two=Two, three=One)
    assert (kinds.get('two'), kinds.get('four')) == (Two, None)
    assert 'One' in kinds and 'four' not in kinds
    with pytest.raises(KeyError, match='two'):
        kinds.register_module('two', module=One)
    kinds.register_module('two', force=True, module=One)
    assert kinds.get('two') is One
