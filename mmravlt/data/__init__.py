"""Data as people have it on disk: found, read, checked, and made ready for training.

Nothing here knows a config or a library of OpenMMLab; :mod:`mmravlt.tasks` puts what
was prepared into configs.
"""

from .base import DataError, DataOptions, Prepared
from .findings import Findings

__all__ = ['DataError', 'DataOptions', 'Findings', 'Prepared']
