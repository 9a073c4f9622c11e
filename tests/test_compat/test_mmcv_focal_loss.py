"""The stand-in's focal loss against torchvision's and itself."""

import pytest
import torch

from mmravlt.compat.mmcv_ext.operators.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from tests.test_compat.operators import HALVES, error, needs_stand_in, on_devices


def focal_case(device, classes=5):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(40, classes, generator=generator) * 4
    labels = torch.randint(0, classes + 1, (40,), generator=generator)
    assert (labels == classes).any()  # background
    return logits.to(device), labels.to(device)


def focal(logits, labels, gamma=2.0, alpha=0.25, weight=None):
    """Unreduced loss and gradient of its sum, called as mmcv's wrapper does."""
    weight = logits.new_empty(0) if weight is None else weight
    loss, grad = torch.zeros_like(logits), torch.zeros_like(logits)
    args = logits, labels, weight
    sigmoid_focal_loss_forward(*args, loss, gamma=gamma, alpha=alpha)
    sigmoid_focal_loss_backward(*args, grad, gamma=gamma, alpha=alpha)
    return loss, grad


def reference_focal(logits, labels, gamma, alpha, weight=None):
    from torchvision.ops import sigmoid_focal_loss

    x = logits.double().requires_grad_()
    classes = torch.arange(x.shape[1], device=x.device)
    target = (labels[:, None] == classes).double()
    loss = sigmoid_focal_loss(x, target, alpha, gamma)
    if weight is not None:
        of_label = torch.cat([weight.double(), weight.new_ones(1).double()])[labels]
        loss = loss * of_label[:, None]
    loss.sum().backward()
    return loss.detach().cpu(), x.grad.cpu()


@on_devices
@pytest.mark.parametrize('weighted', (False, True))
@pytest.mark.parametrize('gamma, alpha', ((2.0, 0.25), (1.5, 0.6), (0.0, 0.5)))
def test_focal_loss_and_gradient_agree_with_torchvision(gamma, alpha, weighted, device):
    logits, labels = focal_case(device)
    weight = torch.tensor([0.5, 2, 1, 0, 3], device=device) if weighted else None
    loss, grad = focal(logits, labels, gamma, alpha, weight)
    expected, expected_grad = reference_focal(logits, labels, gamma, alpha, weight)
    assert error(loss, expected) <= 1e-6
    assert error(grad, expected_grad) <= 1e-6


@needs_stand_in
@on_devices
@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
def test_focal_loss_through_mmcv_has_the_gradient_of_its_reduction(reduction, device):
    from mmcv.ops import sigmoid_focal_loss

    logits, labels = focal_case(device)
    logits.requires_grad_()
    loss = sigmoid_focal_loss(logits, labels, 2.0, 0.25, None, reduction)
    loss.sum().backward()
    _, expected = reference_focal(logits.detach(), labels, 2.0, 0.25)
    divisor = len(logits) if reduction == 'mean' else 1
    assert error(logits.grad, expected / divisor) <= 1e-6


@on_devices
@pytest.mark.parametrize('dtype', (torch.float32, *HALVES))
@pytest.mark.parametrize('logit', (-100.0, 100.0))
def test_focal_loss_of_extreme_logits_is_finite_and_right(logit, dtype, device):
    logits = torch.full((2, 3), logit, dtype=dtype, device=device)
    labels = torch.tensor([1, 3], device=device)
    loss, grad = focal(logits, labels)
    expected, expected_grad = reference_focal(logits, labels, 2.0, 0.25)
    eps = torch.finfo(dtype).eps
    assert error(loss, expected) <= eps
    assert error(grad, expected_grad) <= eps


@pytest.mark.parametrize('label', (-1, 3, 100))
def test_a_label_that_is_no_class_is_background_of_weight_one(label):
    logits = torch.tensor([[0.3, -0.2, 1.0]])
    label, background = torch.tensor([label]), torch.tensor([3])
    weight = torch.tensor([9.0, 9, 9])
    for actual, expected in zip(
        focal(logits, label, weight=weight), focal(logits, background), strict=True
    ):
        assert torch.equal(actual, expected)


@needs_stand_in
@on_devices
@pytest.mark.parametrize('dtype', HALVES)
def test_focal_loss_of_halves_is_the_rounded_float32_result(dtype, device):
    logits, labels = focal_case(device)
    half = logits.to(dtype)
    loss, grad = focal(half, labels)
    expected, expected_grad = focal(half.float(), labels)
    assert loss.dtype == grad.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert error(loss, expected.cpu()) <= eps
    assert error(grad, expected_grad.cpu()) <= eps
