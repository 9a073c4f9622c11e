from .base import Backbone
from .l2vit import L2ViT
from .ravlt import RAVLT
from .with_attention import WithGlobalAttention, with_attention

__all__ = ['RAVLT', 'Backbone', 'L2ViT', 'WithGlobalAttention', 'with_attention']
