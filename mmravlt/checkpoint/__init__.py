"""Read weights, see what they are, and give them to a model.

``load_weights`` does all of it. ``download`` fetches a file and ``loading`` reads
it without running what it carries; ``contents`` recognises what it is, of which of the
``families``; ``remapping`` chooses what a model needs, ``weights`` loads that, and
``writing`` makes clean files of it. All of it works on names, shapes and tensors:
nothing here knows a model.
"""

from .contents import Contents, choose_weights, read_contents
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
from .remapping import fit, remap
from .report import Report
from .weights import load_weights
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
    'load_weights',
    'looks_complete',
    'publish_file',
    'read_contents',
    'remap',
    'unwrap',
]
