"""Focal loss and its gradient, as `mmcv/ops/focal_loss.py` calls them."""

import torch
import torch.nn.functional as F

from .common import compute_dtype

OPERATORS = 'sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward'


def _focal_terms(input, target, weight, gamma, alpha):
    """What loss and gradient share, all in fp32 (fp64 for fp64 logits).

    With z = x for the class of the label and z = -x for the others, both cases
    are one formula: loss = -a (1 - p)^gamma log p with p = sigmoid(z).

    Returns:
        tuple: z / x, 1 - p, log p, and a (1 - p)^gamma times the class weight;
        all N×C.
    """
    x = input.to(compute_dtype(input))
    classes = torch.arange(x.shape[1], device=x.device)
    positive = target[:, None] == classes
    sign = positive.to(x.dtype) * 2 - 1
    z = x * sign
    rest = torch.sigmoid(-z)  # exact where 1 - sigmoid(z) would round to 0
    scale = torch.where(positive, alpha, 1 - alpha).to(x.dtype) * rest.pow(gamma)
    if weight.numel():
        # background, a label equal to C, has no entry in weight
        known = (target >= 0) & (target < x.shape[1])
        of_label = weight.to(x.dtype)[target.clamp(0, x.shape[1] - 1)]
        scale = scale * torch.where(known, of_label, 1)[:, None]
    return sign, rest, F.logsigmoid(z), scale


def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    """Focal loss of C sigmoids (Lin et al., 2017, arXiv:1708.02002), unreduced.

    With p = sigmoid(x): -alpha (1 - p)^gamma log p for the class of the label,
    -(1 - alpha) p^gamma log(1 - p) for all others. The logarithms are computed
    from x. mmcv's kernel takes them of p and 1 - p, rounded, and raised to the
    smallest normal number where they are less: in fp32 its log(1 - p) is -87 for
    every x > 17. There, and for x < -87, this differs from mmcv and is exact.

    Args:
        input (Tensor): N×C logits x.
        target (Tensor): N int64 labels; C, or any other label that is not a
            class, is background.
        weight (Tensor): C factors by the label's class, or empty. Background has
            factor 1.
        output (Tensor): N×C buffer for the loss.
        gamma, alpha (float): focusing and balance parameters.
    """
    _, _, log_p, scale = _focal_terms(input, target, weight, gamma, alpha)
    output.copy_(-scale * log_p)


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    """Gradient of the sum of `sigmoid_focal_loss_forward` with respect to x.

    In the notation of `_focal_terms`,
    d loss / dz = -a (1 - p)^gamma (1 - p - gamma p log p).

    Args:
        grad_input (Tensor): N×C buffer for the gradient.
        input, target, weight, gamma, alpha: as in the forward.
    """
    sign, rest, log_p, scale = _focal_terms(input, target, weight, gamma, alpha)
    grad_input.copy_(-sign * scale * (rest - gamma * log_p.exp() * log_p))
