from .backbones import (
    RAVLT,
    Backbone,
    L2ViT,
    WithGlobalAttention,
    with_attention,
)
from .classifier import Classifier
from .layers import GlobalAttention
from .necks import RAVLTNeck

__all__ = [
    'RAVLT',
    'Backbone',
    'Classifier',
    'GlobalAttention',
    'L2ViT',
    'RAVLTNeck',
    'WithGlobalAttention',
    'with_attention',
]
