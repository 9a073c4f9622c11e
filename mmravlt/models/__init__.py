from .backbones import RAVLT
from .necks import RAVLTNeck

__all__ = ['RAVLT', 'RAVLTNeck']
