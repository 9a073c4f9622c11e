"""Another attention in a backbone of another library, Table 8 of the paper."""

import warnings
from typing import Any

from torch import Tensor, nn

from mmravlt.models.layers import GlobalAttention, Kind
from mmravlt.registry import build_model, register_model

# mmpretrain's modules, by name, since no library of a task is imported here: what
# follows the output projection in each.
_KNOWN = {
    'MultiheadAttention': ('proj_drop', 'gamma1', 'out_drop'),
    'ShiftWindowMSA': ('w_msa.proj_drop', 'drop'),
}


@register_model
def WithGlobalAttention(  # noqa: N802 (it stands for a class in configs)
    backbone: dict, kind: Kind, rope: bool = False
) -> nn.Module:
    """Build a backbone and replace every attention in it by a global one.

    In a config::

        backbone=dict(
            type='WithGlobalAttention',
            kind='focused',
            backbone=dict(type='SwinTransformer', arch='tiny'),
        )

    Everything else stays as it is, stochastic depth behind the attention included. The
    attention itself has biases in its projections and no dropout.

    Args:
        backbone (dict): config of one of mmpretrain's ``VisionTransformer`` (without
            class token: ``with_cls_token=False``, ``out_type='avg_featmap'``),
            ``SwinTransformer``, ``SwinTransformerV2``, ``DaViT`` or
            ``RevVisionTransformer``.
        kind (str | dict): as in :class:`~mmravlt.models.layers.GlobalAttention`.
        rope (bool): as in :class:`~mmravlt.models.layers.GlobalAttention`.

    Returns:
        nn.Module: the backbone.

    Raises:
        ValueError: if it has no attention that is known here, or a class token.
    """
    model = build_model(backbone)
    if getattr(model, 'cls_token', None) is not None:
        raise ValueError(
            f'{type(model).__name__} has a class token, which has no place on a map; '
            "give with_cls_token=False and out_type='avg_featmap'."
        )
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child).__name__ in _KNOWN and _is_mmpretrains(child)
    ]
    # Only Swin's blocks say how high and wide the map of their tokens is.
    needs_size = any(not hasattr(child, 'w_msa') for *_, child in found)
    if not found or (needs_size and not hasattr(model, 'patch_embed')):
        raise ValueError(
            f'{type(model).__name__} has no attention that WithGlobalAttention can '
            'replace; give a VisionTransformer, SwinTransformer or another of its '
            'docstring.'
        )
    size = _MapSize()
    for parent, name, child in found:
        new = _TokenAttention(child, kind, rope, size).train(child.training)
        # Frozen stages stay frozen.
        new.requires_grad_(any(p.requires_grad for p in child.parameters()))
        setattr(parent, name, new)
    if hasattr(model, 'patch_embed'):
        model.patch_embed.register_forward_hook(size)
    return model


@register_model
def with_attention(backbone: dict, kind: Kind, rope: bool = False) -> nn.Module:
    """Former name of :func:`WithGlobalAttention`."""
    warnings.warn(
        "'with_attention' is now called 'WithGlobalAttention'; give this type instead.",
        FutureWarning,
        stacklevel=2,
    )
    return WithGlobalAttention(backbone, kind, rope)


def _is_mmpretrains(module: nn.Module) -> bool:
    # mmcv and PyTorch have a MultiheadAttention too
    return hasattr(module, 'w_msa') or hasattr(module, 'qkv')


class _MapSize:
    """Height and width of the tokens' map, as the patch embedding returns them."""

    value: tuple[int, int]

    def __call__(self, module: nn.Module, inputs: tuple, outputs: tuple) -> None:
        self.value = outputs[1]


class _TokenAttention(GlobalAttention):
    """Global attention called as another module, which it replaces, was called.

    Args:
        replaced (nn.Module): one of :data:`_KNOWN`.
        kind (str | dict): as in :class:`GlobalAttention`.
        rope (bool): as in :class:`GlobalAttention`.
        size (_MapSize): of the map, where the caller does not say.
    """

    def __init__(
        self, replaced: nn.Module, kind: Kind, rope: bool, size: _MapSize
    ) -> None:
        inner: Any = getattr(replaced, 'w_msa', replaced)
        super().__init__(inner.embed_dims, inner.num_heads, kind, rope)
        after = _KNOWN[type(replaced).__name__]
        self.after = nn.Sequential(*map(replaced.get_submodule, after))
        self.size = size

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, H * W, C) to tokens of the same shape."""
        size = tuple(hw_shape or self.size.value)
        y = super().forward(x.transpose(1, 2).unflatten(2, size))
        return self.after(y.flatten(2).transpose(1, 2))
