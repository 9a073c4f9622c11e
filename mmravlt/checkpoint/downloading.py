"""Download checkpoint files: whole or not at all, and once."""

import http.client
import os
import re
import sys
from urllib.parse import urlparse

import torch

from .errors import DamagedCheckpointError, DownloadError, UnsafeCheckpointError
from .loading import load_file, looks_complete

# `name-<first 8 digits of the SHA-256>.pth`, as the model zoos name their files;
# a date such as -20240131 also has eight such digits.
_HASH = re.compile(r'-(?!20\d{2}[01]\d[0-3]\d\.)([0-9a-f]{8})\.(?:pth|safetensors)$')


def place_of(url: str, folder: str | None = None) -> str:
    """Where the file of an address is kept.

    Args:
        url: The address.
        folder: The folder; None for ``checkpoints`` under ``torch.hub.get_dir()``,
            which follows ``TORCH_HOME`` and ``XDG_CACHE_HOME``.
    """
    folder = folder or os.path.join(torch.hub.get_dir(), 'checkpoints')
    return os.path.join(folder, os.path.basename(urlparse(url).path))


def download(url: str, path: str, progress: bool | None = None) -> None:
    """Fetch a checkpoint, unless its file is there.

    Args:
        url: The address. The hash in a name that ends in
            ``-<8 hexadecimal digits>.pth`` is checked.
        path: The file, see :func:`place_of`.
        progress: Draw a progress bar; None does so on a terminal.

    Raises:
        DownloadError: It failed; no file is left behind.
    """
    if os.path.exists(path):
        return
    partial = f'{path}.{os.getpid()}.partial'
    named_hash = _HASH.search(path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.hub.download_url_to_file(
            url,
            partial,
            hash_prefix=named_hash and named_hash[1],
            progress=sys.stderr.isatty() if progress is None else progress,
        )
        # torch takes a connection that closed early for the end of the file
        if not _is_complete(partial):
            size = os.path.getsize(partial)
            raise OSError(f'{size} bytes arrived, not a complete checkpoint')
        os.replace(partial, path)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise download_error(url, path, error) from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def download_error(url: str, path: str, reason: object) -> DownloadError:
    """What to do where a download failed."""
    return DownloadError(
        f'{url} could not be downloaded ({reason}): put the file at {path} by hand'
    )


def _is_complete(path: str) -> bool:
    with open(path, 'rb') as file:
        if not looks_complete(file):
            return False
        is_old = file.read(1) == b'\x80'
    if is_old:  # the format before torch 1.6 shows its end only when it is read
        try:
            load_file(path)
        except DamagedCheckpointError:
            return False
        except UnsafeCheckpointError:  # said again when it is loaded
            return True
    return True
