from .attention import (
    Attention,
    RALAttention,
    SoftmaxAttention,
    merge_heads,
    split_heads,
)
from .attention_zoo import GlobalAttention
from .ffn import FFN
from .fused_conv import residual_conv, scaled_conv
from .init import init_convolution
from .norm import LayerNorm2d
from .patch_embed import Downsample, PatchEmbed
from .recompute import call_forgetting
from .rope2d import RoPE2d

__all__ = [
    'Attention',
    'Downsample',
    'FFN',
    'GlobalAttention',
    'LayerNorm2d',
    'PatchEmbed',
    'RALAttention',
    'RoPE2d',
    'SoftmaxAttention',
    'init_convolution',
    'merge_heads',
    'call_forgetting',
    'residual_conv',
    'scaled_conv',
    'split_heads',
]
