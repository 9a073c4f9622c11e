from .backbones import RAVLT, Backbone, L2ViT
from .necks import RAVLTNeck

__all__ = ['RAVLT', 'Backbone', 'L2ViT', 'RAVLTNeck']
