"""Read checkpoint files without running what they carry.

A file of ``torch.save`` is read by :mod:`.unpickling`, which finds a short list of
types and nothing else. A file that needs more is refused by a sentence that names
the type.

The switch: with the environment variable ``MMRAVLT_TRUST_CHECKPOINT=1`` a file
is unpickled without any restriction, so that it can run code on your machine,
and one warning names it. Use it only for files from people you trust.

A ``.safetensors`` file holds nothing but tensors and text, and is read with the
library of that name (https://github.com/huggingface/safetensors).
"""

import json
import logging
import os
import pickle
import re
import struct
import zipfile
from typing import Any, BinaryIO, cast

import torch

from .errors import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    UnsafeCheckpointError,
)
from .unpickling import unpickle

TRUST_SWITCH = 'MMRAVLT_TRUST_CHECKPOINT'

logger = logging.getLogger(__name__)


def load_file(source: str | os.PathLike | BinaryIO, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint file, of any layout, without running code from it.

    Args:
        source: The file's path (``~`` is expanded), or an open binary file
            that can seek.
        map_location: Where the tensors go, as in ``torch.load``.

    Returns:
        What the file holds. A ``defaultdict`` and MMEngine's ``ConfigDict``
        come back as ``dict``, a path as a pure path. Of a ``.safetensors`` file,
        the tensors as ``state_dict``, and as ``meta`` what
        :func:`~mmravlt.checkpoint.convert_file` wrote beside them.

    Raises:
        MissingCheckpointError: There is no such file.
        DamagedCheckpointError: It is no checkpoint, or an incomplete one.
        UnsafeCheckpointError: It holds a type that is not on the list.
        CheckpointError: The library safetensors is needed and not installed.
    """
    if hasattr(source, 'read'):
        name = getattr(source, 'name', 'the given file')
        return _load(cast(BinaryIO, source), name, map_location)
    path = os.path.expanduser(os.fspath(source))
    if not os.path.isfile(path):
        what = (
            'is a folder, no checkpoint' if os.path.isdir(path) else 'can not be found'
        )
        raise MissingCheckpointError(f'{path} {what}.')
    with open(path, 'rb') as file:
        return _load(file, path, map_location)


def unwrap(checkpoint: Any) -> Any:
    """Give a released classifier the layout that MMEngine reads.

    The release follows DeiT (https://github.com/facebookresearch/deit): weights
    under ``model``, beside the state of a training that MMEngine can not
    continue, which is left out. Anything else comes back untouched, so that
    applying this twice changes nothing.

    Args:
        checkpoint: What :func:`load_file` returned.

    Returns:
        ``{'state_dict': weights}`` for a DeiT layout, else ``checkpoint``.
    """
    if (
        isinstance(checkpoint, dict)
        and 'state_dict' not in checkpoint
        and isinstance(checkpoint.get('model'), dict)
    ):
        return {'state_dict': checkpoint['model']}
    return checkpoint


def looks_complete(file: BinaryIO) -> bool:
    """Whether a file may be a whole checkpoint, judged without reading it all.

    Since torch 1.6 a checkpoint is a zip archive, whose list of contents stands
    at its end: a download that stopped early has none. A safetensors file states
    its size. Older files are a row of pickles, of which only the first bytes are
    known.

    Args:
        file: An open binary file; it is left at its beginning.
    """
    header = _safetensors_header(file)
    if header is not None:
        contents = [v for key, v in header.items() if key != '__metadata__']
        size = max((tensor['data_offsets'][1] for tensor in contents), default=0)
        complete = file.tell() + size == file.seek(0, os.SEEK_END)
    else:
        file.seek(0)
        head = file.read(2)
        complete = zipfile.is_zipfile(file) if head == b'PK' else head[:1] == b'\x80'
    file.seek(0)
    return complete


def _safetensors_header(file: BinaryIO) -> dict | None:
    """The list of contents of a safetensors file, or None if it is another.

    The format: 8 bytes that hold the length of the header, the header in JSON,
    and the tensors. The file is left at the end of the header.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), 'little')
    if length > 100_000_000 or file.read(1) != b'{':  # the library's own limit
        return None
    try:
        return json.loads(b'{' + file.read(length - 1))
    except ValueError:  # cut within the header
        return None


def _load_safetensors(file: BinaryIO, name: str, header: dict, device: Any) -> dict:
    try:
        from safetensors.torch import load
    except ImportError:
        raise CheckpointError(
            f'{name} is a safetensors file, and the library safetensors that reads '
            f'it is not installed: pip install safetensors'
        ) from None
    file.seek(0)
    weights = load(file.read())
    if isinstance(device, (str, torch.device)):
        weights = {key: value.to(device) for key, value in weights.items()}
    meta = json.loads(header.get('__metadata__', {}).get('mmravlt', '{}'))
    return {'meta': meta, 'state_dict': weights}


def _load(file: BinaryIO, name: str, map_location: Any) -> Any:
    size = file.seek(0, os.SEEK_END)
    damaged = DamagedCheckpointError(
        f'{name} ({size} bytes) is not a file that torch.save wrote, or only the '
        f'beginning of one: if it was downloaded, fetch it again.'
    )
    if not looks_complete(file):
        raise damaged
    header = _safetensors_header(file)
    if header is not None:
        return _load_safetensors(file, name, header, map_location)
    file.seek(0)
    if os.environ.get(TRUST_SWITCH) == '1':
        logger.warning(
            '%s is loaded without restrictions because %s=1 is set: it can run '
            'any code it carries.',
            name,
            TRUST_SWITCH,
        )
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        return unpickle(file, map_location)
    except pickle.UnpicklingError as error:
        wanted = re.search(r'\bGLOBAL ([^\s,;]+)', str(error))
        reason = str(error).strip().splitlines()[-1]
        file.seek(0)
        is_archive = zipfile.is_zipfile(file)
    except (EOFError, IndexError, UnicodeDecodeError, struct.error):
        # How a row of pickles ends that was cut.
        raise damaged from None
    except RuntimeError as error:
        if re.search('PytorchStreamReader|EOF|corrupt', str(error)):
            raise damaged from None
        raise
    # torch's own message is left out: it advises to unpickle everything.
    if wanted:
        held = wanted[1] if '.' in wanted[1] else f'builtins.{wanted[1]}'
    elif is_archive:
        held = f'a pickle that can not be read safely ({reason})'
    else:
        raise damaged
    raise UnsafeCheckpointError(
        f'{name} was not loaded because it holds {held}, which is not among the '
        f'types that checkpoints need: if you trust the origin of this file, set '
        f'the environment variable {TRUST_SWITCH}=1 to load it all the same.'
    )
