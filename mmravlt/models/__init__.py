from .backbones import RAVLT, Backbone, L2ViT, with_attention
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
    'with_attention',
]
