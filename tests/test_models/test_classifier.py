"""The classifier of the configs computes what the release's computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmravlt import config_path
from mmravlt.models import RAVLTNeck

from ..golden_fill import fill_state_dict, make_input, relative_error

DATA = Path(__file__).parents[1] / 'data'


def build(arch):
    cfg = Config.fromfile(config_path(f'mmpretrain/ravlt_{arch}_in1k.py'))
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model)


def release_name(name):
    """A classifier's parameter, in the release's own spelling."""
    if name.startswith('head.fc.'):
        return name.replace('head.fc.', 'head.')
    return name.removeprefix('backbone.').removeprefix('neck.')


@pytest.mark.parametrize('arch', 'tsbl')
def test_logits_equal_the_release(arch):
    golden = np.load(DATA / f'classifier_{arch}_llvv_2x3x64x64_seed0.npz')
    meta = json.loads(str(golden['meta']))
    assert (meta['arch'], meta['attention']) == (arch, 'llvv')
    model = build(arch).eval()
    ours = model.state_dict()
    released = {release_name(name): value for name, value in ours.items()}
    assert len(released) == len(ours)
    released['head.weight'] = released['head.weight'][:, :, None, None]
    values = fill_state_dict(released, meta['seed'])
    values['head.weight'] = values['head.weight'].flatten(1)
    for name, value in ours.items():
        if value.is_floating_point():
            value.copy_(values[release_name(name)])
    with torch.no_grad():
        logits = model(make_input(meta['shape'], meta['seed']))
    assert relative_error(logits, golden['out0']) <= 1e-5


# Parameters of the release's classifiers, in millions.
@pytest.mark.parametrize(
    'arch,millions', [('t', 14.90), ('s', 25.59), ('b', 48.24), ('l', 95.24)]
)
def test_parameters_are_those_of_the_release(arch, millions):
    with torch.device('meta'):
        model = build(arch)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize('arch', 'tl')
def test_neck_and_head_start_as_in_the_release(arch):
    model = build(arch)
    model.init_weights()
    for layer in (model.neck.proj, model.head.fc):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.01)
        assert layer.weight.mean().item() == pytest.approx(0, abs=1e-4)
        assert not layer.bias.any()


@pytest.mark.parametrize('height,width', [(1, 1), (3, 5)])
def test_neck_pools_the_last_map_to_one_vector_per_image(height, width):
    neck = RAVLTNeck(in_channels=6, out_channels=10).eval()
    maps = (torch.randn(2, 4, 8, 8), torch.randn(2, 6, height, width))
    (vector,) = neck(maps)
    assert vector.shape == (2, 10)
    pixels = [
        neck((maps[1][:, :, i : i + 1, j : j + 1],))[0]
        for i in range(height)
        for j in range(width)
    ]
    torch.testing.assert_close(vector, torch.stack(pixels).mean(0))


def test_norm_cfg_chooses_the_necks_batch_norm():
    neck = RAVLTNeck(in_channels=6, norm_cfg=dict(type='SyncBN'))
    assert isinstance(neck.norm, nn.SyncBatchNorm)
