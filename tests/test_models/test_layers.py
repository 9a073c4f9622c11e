import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmravlt.models.layers import GELU2d, wide_depthwise_conv

from ..golden_fill import make_input


def depthwise(size):
    conv = nn.Conv2d(8, 8, size, padding=size // 2, groups=8).double()
    return conv.to(memory_format=torch.channels_last)


@pytest.mark.parametrize('size', [5, 7])
@pytest.mark.parametrize('height,width', [(1, 1), (2, 5), (7, 4), (3, 8), (9, 13)])
def test_wide_depthwise_convolutions_are_exact(size, height, width):
    conv, x = depthwise(size), make_input((2, 8, height, width)).double()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = [x, conv.weight, conv.bias]
    result, expected = wide_depthwise_conv(conv, x), conv(x)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(result, expected)
    for gradient, value in zip(
        torch.autograd.grad(result, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(gradient, value)
        assert gradient.stride() == value.stride()


@pytest.mark.parametrize(
    'options',
    [
        dict(groups=1),
        dict(groups=2),
        dict(out_channels=16),
        dict(kernel_size=3, padding=1),
        dict(kernel_size=4),
        dict(padding=1),
        dict(padding='same'),
        dict(stride=2),
        dict(dilation=2),
        dict(padding_mode='reflect'),
        dict(bias=False),
    ],
    ids=str,
)
def test_other_convolutions_are_called_as_they_are(options):
    depthwise = dict(out_channels=8, kernel_size=5, padding=2, groups=8)
    conv, x = nn.Conv2d(8, **{**depthwise, **options}), make_input((1, 8, 9, 10))
    results = wide_depthwise_conv(conv, x), conv(x)
    torch.testing.assert_close(*results)
    weights = (torch.autograd.grad(y.square().sum(), conv.weight)[0] for y in results)
    torch.testing.assert_close(*weights)


def test_wide_depthwise_convolutions_are_differentiable_twice():
    conv, x = depthwise(5), make_input((1, 8, 6, 7)).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: wide_depthwise_conv(conv, x), x)


def test_wide_depthwise_convolutions_take_functional_gradients():
    conv, x = depthwise(5), make_input((1, 8, 6, 7)).double()
    gradients = (
        torch.func.grad(lambda x, apply=apply: apply(x).square().sum())(x)
        for apply in (conv, lambda x: wide_depthwise_conv(conv, x))
    )
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('trained', ['x', 'weight', 'bias'])
def test_wide_depthwise_convolutions_give_the_wanted_gradients_only(trained):
    conv, x = depthwise(5).requires_grad_(False), make_input((1, 8, 6, 7)).double()
    tensors = dict(x=x, weight=conv.weight, bias=conv.bias)
    tensors[trained].requires_grad_()
    wide_depthwise_conv(conv, x).sum().backward()
    assert [name for name in tensors if tensors[name].grad is not None] == [trained]


@pytest.mark.parametrize(
    'memory_format', [torch.channels_last, torch.contiguous_format]
)
def test_gelu_of_a_map_is_gelu_in_any_layout(memory_format):
    x = make_input((2, 5, 7, 3)).contiguous(memory_format=memory_format)
    x.requires_grad_()
    result, expected = GELU2d()(x), F.gelu(x)
    torch.testing.assert_close(result, expected)
    assert result.stride() == x.stride()
    gradients = (
        torch.autograd.grad(y.square().sum(), x)[0] for y in (result, expected)
    )
    torch.testing.assert_close(*gradients)
