"""Measures of rank from singular values."""

import torch
from torch import Tensor

#: The measures, by their names in tables, with those in figures.
MEASURES = {
    'rank': 'rank',
    'stable_rank': 'stable rank',
    'entropy': 'entropy (nats)',
    'effective_rank': 'effective rank',
}
#: Singular values above this share of the largest count for the rank.
THRESHOLD = 0.01


def singular_values(matrices: Tensor) -> Tensor:
    """Singular values in float64, largest first.

    Args:
        matrices (Tensor): shape (…, rows, columns), of any type and on any device.

    Returns:
        Tensor: shape (…, min(rows, columns)), float64, on the CPU.
    """
    return torch.linalg.svdvals(matrices.detach().cpu().double())


def measure(values: Tensor, threshold: float = THRESHOLD) -> dict[str, Tensor]:
    r"""Measures of rank from singular values; all are 0 for a matrix of zeros.

    - ``rank``: how many :math:`\sigma_i > \text{threshold} \cdot \sigma_1`.
    - ``stable_rank``: :math:`\lVert A \rVert_F^2 / \lVert A \rVert_2^2 =
      \sum_i \sigma_i^2 / \sigma_1^2` (Rudelson and Vershynin, 2007).
    - ``entropy``: :math:`H = -\sum_i p_i \ln p_i` with
      :math:`p_i = \sigma_i / \sum_j \sigma_j`, in nats (Roy and Vetterli, 2007).
    - ``effective_rank``: :math:`e^H` (Roy and Vetterli, 2007).

    Args:
        values (Tensor): singular values, shape (…, n), largest first. Zeros at the end
            change nothing.
        threshold (float): from 0 to below 1.

    Returns:
        dict[str, Tensor]: for each of :data:`MEASURES`, shape (…), float64.

    Raises:
        ValueError: if the threshold is out of range.
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f'threshold is {threshold}; give a share of the largest singular value, '
            'from 0 to below 1, such as 0.01.'
        )
    values = values.double()
    tiny = torch.finfo(values.dtype).tiny
    largest = values[..., :1]
    shares = values / values.sum(dim=-1, keepdim=True).clamp(min=tiny)
    entropy = torch.special.entr(shares).sum(dim=-1)
    return dict(
        rank=(values > threshold * largest).sum(dim=-1).double(),
        stable_rank=(values / largest.clamp(min=tiny)).square().sum(dim=-1),
        entropy=entropy,
        effective_rank=entropy.exp() * (largest[..., 0] > 0),
    )
