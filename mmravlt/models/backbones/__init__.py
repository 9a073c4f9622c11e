from .base import Backbone
from .l2vit import L2ViT
from .ravlt import RAVLT

__all__ = ['RAVLT', 'Backbone', 'L2ViT']
