"""Download checkpoint files, once."""

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


def cached_path(url: str, folder: str | None = None) -> str:
    """Where the file of an address is kept.

    Args:
        url: The address.
        folder: None takes ``checkpoints`` under ``torch.hub.get_dir()``, which follows
            ``TORCH_HOME`` and ``XDG_CACHE_HOME``.
    """
    folder = folder or os.path.join(torch.hub.get_dir(), 'checkpoints')
    return os.path.join(folder, os.path.basename(urlparse(url).path))


def download(url: str, folder: str | None = None, progress: bool | None = None) -> str:
    """Download a checkpoint file, unless it is there already.

    Args:
        url: The address. The hash in a name that ends in
            ``-<8 hexadecimal digits>.pth`` is checked.
        folder: As for :func:`cached_path`.
        progress: Draw a progress bar; None does so on a terminal.

    Returns:
        The file's path.

    Raises:
        DownloadError: The download failed; no file is left behind.
    """
    path = cached_path(url, folder)
    if os.path.exists(path):
        return path
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
        raise DownloadError(
            f'{url} could not be downloaded ({error}): put the file at {path} by hand'
        ) from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return path


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
