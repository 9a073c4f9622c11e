"""In training on a CPU, batch statistics of large maps are accurate."""

import copy

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmravlt.models.backbones.l2vit import LocalConcentration, Stem
from mmravlt.models.layers import Downsample, PatchEmbed, call_normalising

from ..golden_fill import filled, make_input, relative_error

LARGE = (2, 6, 301, 397)  # PyTorch's statistics of such a map are wrong by 2e-5
BN, SYNC_BN = dict(type='BN'), dict(type='SyncBN')
NORMS = {
    'BN': nn.BatchNorm2d(6),
    'SyncBN': nn.SyncBatchNorm(6),
    'SyncBN of one process': revert_sync_batchnorm(nn.SyncBatchNorm(6)),
    'cumulative': nn.BatchNorm2d(6, momentum=None),
    'without weights': nn.BatchNorm2d(6, affine=False),
    'without statistics': nn.BatchNorm2d(6, track_running_stats=False),
    'frozen weights': nn.BatchNorm2d(6).requires_grad_(False),
    'evaluated': nn.BatchNorm2d(6).eval(),
}
PARTS = {
    'stem': (lambda: PatchEmbed(3, 8, BN), (1, 3, 700, 900)),
    'downsampling': (lambda: Downsample(3, 4, SYNC_BN), (1, 3, 700, 900)),
    'stem of L2ViT': (lambda: Stem(3, 8, BN), (1, 3, 700, 900)),
    'local concentration': (lambda: LocalConcentration(2, BN), (1, 2, 350, 450)),
}


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def shifted_map(shape):
    return channels_last(make_input(shape) + 3)


@pytest.mark.parametrize('name', NORMS)
def test_every_kind_of_norm_computes_what_it_does_in_float64(name):
    norm, x = copy.deepcopy(NORMS[name]), shifted_map(LARGE)
    precise = copy.deepcopy(norm).double()
    for _ in range(2):
        output, expected = call_normalising(norm, x), precise(x.double())
    assert relative_error(output, expected) <= 2e-6
    for buffer, value in zip(norm.buffers(), precise.buffers(), strict=True):
        assert (buffer - value).abs().max() <= 2e-6 * value.abs().max()
    assert output.stride() == x.stride()


@pytest.mark.parametrize('name', PARTS)
def test_every_part_with_norms_computes_what_it_does_in_float64(name):
    build, shape = PARTS[name]
    part = filled(build().train())
    precise = copy.deepcopy(part).double()
    x = shifted_map(shape)
    with torch.no_grad():
        assert relative_error(part(x), precise(x.double())) <= 5e-6
    for key, value in precise.state_dict().items():
        assert relative_error(part.state_dict()[key], value) <= 2e-6, key


@pytest.mark.parametrize('name', NORMS)
@pytest.mark.parametrize('shape', [(2, 6, 41, 53), (2, 6, 3, 5)])
def test_gradients_of_first_and_second_order_are_those_of_the_norm(name, shape):
    norm, x = copy.deepcopy(NORMS[name]), shifted_map(shape)
    for i, parameter in enumerate(norm.parameters()):
        nn.init.uniform_(parameter, 0.5 + i, 1 + i)
    dy = channels_last(make_input(shape, 1))
    results = []
    for dtype, call in (
        (torch.float32, call_normalising),
        (torch.float64, lambda norm, x: norm(x)),
    ):
        module, image = copy.deepcopy(norm).to(dtype), x.to(dtype).requires_grad_()
        upper = dy.to(dtype).requires_grad_()
        learnt = [p for p in module.parameters() if p.requires_grad]
        first = torch.autograd.grad(
            call(module, image), [image, *learnt], upper, create_graph=True
        )
        loss = first[0].square().sum() + image.square().sum()
        second = torch.autograd.grad(loss, [image, upper])
        results.append([*first, *second])
    for gradient, value in zip(*results, strict=True):
        assert (gradient - value).abs().max() <= 1e-5 * value.abs().max() + 1e-6


def test_hooks_of_a_norm_are_called():
    norm, called = nn.BatchNorm2d(6), []
    norm.register_forward_pre_hook(lambda *_: called.append('before'))
    norm.register_forward_hook(lambda *_: called.append('after'))
    norm.register_full_backward_hook(lambda *_: called.append('backward'))
    x = shifted_map((2, 6, 41, 53)).requires_grad_()
    call_normalising(norm, x).sum().backward()
    assert called == ['before', 'after', 'backward']


def test_a_single_value_per_channel_is_refused_as_ever():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        call_normalising(nn.BatchNorm2d(6), channels_last(make_input((1, 6, 1, 1))))
