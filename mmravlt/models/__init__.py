from .backbones import RAVLT, with_attention
from .layers import GlobalAttention
from .necks import RAVLTNeck

__all__ = ['GlobalAttention', 'RAVLT', 'RAVLTNeck', 'with_attention']
