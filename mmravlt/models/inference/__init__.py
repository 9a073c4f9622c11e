from .ravlt import RAVLTForInference

__all__ = ['RAVLTForInference']
