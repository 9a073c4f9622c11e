"""Read weights, see what they are, and fit them to a model.

``download`` fetches a file, ``loading`` reads it without running what it carries,
``weights`` recognises what it is, of which of the ``families``, and gives a model the
weights it needs, ``writing`` makes clean files of it. All of it works on names, shapes
and tensors: nothing here knows a model.
"""

from .download import cached_path, download
from .errors import (
    CheckpointError,
    DamagedCheckpointError,
    DownloadError,
    MissingCheckpointError,
    MissingPrefixError,
    UnsafeCheckpointError,
    WrongWeightsError,
)
from .families import BACKBONE, VARIANTS, Size, find_backbones
from .loading import TRUST_SWITCH, load_file, looks_complete, unwrap
from .weights import Contents, Report, choose_weights, fit, read_contents
from .writing import USES, convert_file, publish_file

__all__ = [
    'BACKBONE',
    'TRUST_SWITCH',
    'USES',
    'VARIANTS',
    'CheckpointError',
    'Contents',
    'DamagedCheckpointError',
    'DownloadError',
    'MissingCheckpointError',
    'MissingPrefixError',
    'Report',
    'Size',
    'UnsafeCheckpointError',
    'WrongWeightsError',
    'cached_path',
    'choose_weights',
    'convert_file',
    'download',
    'find_backbones',
    'fit',
    'load_file',
    'looks_complete',
    'publish_file',
    'read_contents',
    'unwrap',
]
