"""Record what attention computes of its tokens, with forward hooks."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from mmravlt.models.layers import split_heads

#: The matrices, by their names in tables, with those in figures.
MATRICES = {
    'kv_buffer': 'KV buffer',
    'output_features': 'output features',
    'output_map': 'output of all heads',
}
#: Of them, the one that all heads make together.
ALL_HEADS = 'output_map'


@dataclass(frozen=True)
class Sample:
    """A matrix of every head that an attention computed.

    Attributes:
        module (str): path of the attention in the model.
        matrix (str): one of :data:`MATRICES`.
        values (Tensor): shape (B, heads, rows, d); (B, 1, rows, C) of all heads.
    """

    module: str
    matrix: str
    values: Tensor


@contextmanager
def record(model: nn.Module) -> Iterator[list[Sample]]:
    """Record the matrices of every attention in a model while it runs.

    These are every module with ``first_conv``, ``kv_buffer``, ``proj`` and
    ``num_heads``, as :mod:`mmravlt.models.layers.attention` defines them, and every one
    with ``qkv``, ``proj`` and ``num_heads``, as mmpretrain's DeiT and Swin have them,
    which has no KV buffer. Attention within windows gives matrices of each window.

    Forward hooks record, and are gone afterwards. While they are there, convolutions
    run step by step instead of fused, which changes results by rounding only.

    Args:
        model (nn.Module): any model, or an attention.

    Yields:
        list[Sample]: grows with every attention that runs.

    Raises:
        ValueError: if there is no attention in the model.
    """
    found = {n: m for n, m in model.named_modules() if _is_known(m)}
    if not found:
        raise ValueError(
            f'The {type(model).__name__} has no attention that is known here; give a '
            'model with a RAVLT, an L2ViT, a VisionTransformer or SwinTransformer of '
            'mmpretrain, or with attention replaced by WithGlobalAttention.'
        )
    samples = []
    handles = []
    try:
        for name, attention in found.items():
            handles += _Watch(name, attention, samples).register()
        yield samples
    finally:
        for handle in handles:
            handle.remove()


def _has_buffer(module: nn.Module) -> bool:
    return hasattr(module, 'kv_buffer') and hasattr(module, 'first_conv')


def _is_known(module: nn.Module) -> bool:
    has_ends = hasattr(module, 'proj') and hasattr(module, 'num_heads')
    return has_ends and (_has_buffer(module) or hasattr(module, 'qkv'))


class _Watch:
    """The hooks of one attention, which know of each other's tensors."""

    def __init__(self, name: str, attention: nn.Module, samples: list[Sample]) -> None:
        self.name = name
        self.attention = attention
        self.samples = samples

    def register(self) -> list:
        """Add the hooks, and return what removes them."""
        attention = self.attention
        handles = [attention.proj.register_forward_pre_hook(self.keep_features)]
        if _has_buffer(attention):
            handles += [
                attention.register_forward_pre_hook(self.keep_rope, with_kwargs=True),
                attention.first_conv.register_forward_hook(self.keep_buffer),
            ]
        return handles

    def keep_rope(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        self.rope = bound.arguments.get('rope')  # not all kinds have one

    def keep_buffer(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        output = _as_map(output, module)
        parts = output.split(_as_map(args[0], module).shape[1], dim=1)[:3]
        q, k, v = (split_heads(part, self.attention.num_heads) for part in parts)
        buffer = self.attention.kv_buffer(q, k, v, self.rope)
        if buffer is not None:
            self.samples.append(Sample(self.name, 'kv_buffer', buffer.detach()))

    def keep_features(self, module: nn.Module, args: tuple) -> None:
        features = _as_map(args[0].detach(), module)
        features = split_heads(features, self.attention.num_heads)
        self.samples.append(Sample(self.name, 'output_features', features))
        joined = features.transpose(1, 2).flatten(2).unsqueeze(1)
        self.samples.append(Sample(self.name, ALL_HEADS, joined))


def _as_map(x: Tensor, layer: nn.Module) -> Tensor:
    """(B, C, H, W), as which tokens (B, N, C) have a width of 1."""
    if isinstance(layer, nn.Linear):  # works on the last axis
        x = x.movedim(-1, 1)
    return x.unsqueeze(-1) if x.ndim == 3 else x
