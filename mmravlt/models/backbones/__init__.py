from .ravlt import RAVLT
from .with_attention import with_attention

__all__ = ['RAVLT', 'with_attention']
