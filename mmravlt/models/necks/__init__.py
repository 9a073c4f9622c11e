from .ravlt_neck import RAVLTNeck

__all__ = ['RAVLTNeck']
