from inspect import isclass
from typing import Any

from torch import nn

from mmravlt.registry import find_model

_BATCH_NORMS: dict[str, type] = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'SyncBN': nn.SyncBatchNorm,
}


def build_batch_norm(
    norm_cfg: dict[str, Any], channels: int
) -> nn.BatchNorm2d | nn.SyncBatchNorm:
    """Build the batch normalisation of a map as an OpenMMLab config describes it.

    Args:
        norm_cfg (dict): ``type`` is 'BN', 'SyncBN', the name of a subclass of one of
            the two that is registered in MMEngine, or such a class. With
            ``requires_grad=False``, weight and bias are not trained. Everything else
            goes to the class, such as ``eps`` and ``momentum``.
        channels (int): C of the maps, shape (B, C, H, W).

    Returns:
        nn.BatchNorm2d | nn.SyncBatchNorm: the module.

    Raises:
        ValueError: if ``norm_cfg`` describes no such normalisation.
    """
    try:
        options = dict(norm_cfg)
        cls = options.pop('type')
        requires_grad = options.pop('requires_grad', True)
        if not isclass(cls):
            cls = _BATCH_NORMS.get(cls) or find_model(cls)
        norm = cls(channels, **options)
    except (KeyError, TypeError, ValueError):
        norm = None
    if not isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        raise ValueError(
            f"norm_cfg is {norm_cfg!r}; give dict(type='BN') or dict(type='SyncBN')."
        )
    return norm.requires_grad_(requires_grad)
