from .attention import (
    Attention,
    RALAttention,
    SoftmaxAttention,
    check_flag,
    merge_heads,
    split_heads,
)
from .attention_kinds import Kind, add_option, build_attention, read_kind
from .attention_zoo import GlobalAttention
from .batch_norm import call_normalising
from .drop_path import DropPath
from .ffn import FFN, MLP
from .fused_conv import residual_conv, scaled_conv, wide_depthwise_conv
from .gelu import GELU2d
from .init import init_convolution, init_linear
from .norm import ChannelLayerNorm, LayerNorm2d
from .norm_cfg import build_batch_norm
from .patch_embed import Downsample, PatchEmbed, conv_norm
from .recompute import call_recomputing, call_recomputing_input
from .rope2d import RoPE2d
from .windows import from_windows, pad_to_multiple, to_windows

__all__ = [
    'Attention',
    'ChannelLayerNorm',
    'Downsample',
    'DropPath',
    'FFN',
    'GELU2d',
    'GlobalAttention',
    'Kind',
    'LayerNorm2d',
    'MLP',
    'PatchEmbed',
    'RALAttention',
    'RoPE2d',
    'SoftmaxAttention',
    'add_option',
    'build_attention',
    'build_batch_norm',
    'call_recomputing_input',
    'call_normalising',
    'call_recomputing',
    'check_flag',
    'conv_norm',
    'from_windows',
    'init_convolution',
    'init_linear',
    'merge_heads',
    'pad_to_multiple',
    'read_kind',
    'residual_conv',
    'scaled_conv',
    'split_heads',
    'to_windows',
    'wide_depthwise_conv',
]
