from .attention import RALAttention, SoftmaxAttention
from .ffn import FFN
from .init import init_convolution
from .norm import LayerNorm2d
from .patch_embed import Downsample, PatchEmbed
from .rope2d import RoPE2d

__all__ = [
    'Downsample',
    'FFN',
    'LayerNorm2d',
    'PatchEmbed',
    'RALAttention',
    'RoPE2d',
    'SoftmaxAttention',
    'init_convolution',
]
