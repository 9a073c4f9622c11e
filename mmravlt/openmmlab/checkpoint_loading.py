"""Let MMEngine read files and addresses through :mod:`mmravlt.checkpoint`.

After :func:`install` it reads them without running what they carry, safetensors
too, says in one sentence what is wrong with a file, and keeps a download only if it
is whole.

``mmengine.runner.load_checkpoint``, ``Runner.resume`` and ``init_cfg`` of type
``Pretrained`` all ask MMEngine's ``CheckpointLoader``, so they need no change.
"""

import os
from typing import Any

from mmravlt.checkpoint import DownloadError, cached_path, download, load_file

_ADVICE = (
    'or, where it is what a training begins with, train from random weights with '
    '--cfg-options model.backbone.init_cfg=None'
)


def install() -> None:
    """Replace MMEngine's loaders of local files and of http(s) addresses.

    Schemes that lead to an address (``torchvision://``, ``openmmlab://``,
    ``mmcls://``) follow.

    May be called any number of times, before or after MMEngine was imported.
    """
    from mmengine.runner import checkpoint

    register = checkpoint.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)  # MMEngine has registered its own
    register(('http://', 'https://'), load_from_http, force=True)
    # The other schemes call these by their names in that module.
    checkpoint.load_from_local = load_from_local
    checkpoint.load_from_http = load_from_http


# MMEngine logs what follows `load_from_`, and passes the arguments by position.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint from the disk.

    Args:
        filename: The path; ``~`` is expanded.
        map_location: As in ``torch.load``; None means the CPU, where the
            weights of a file saved on a GPU can always go.

    Raises:
        MissingCheckpointError: There is no such file.
        DamagedCheckpointError: It is no checkpoint, or an incomplete one.
        UnsafeCheckpointError: It holds a type that is not on the list.
    """
    return load_file(filename, 'cpu' if map_location is None else map_location)


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | None = None,
    progress: bool | None = None,
) -> Any:
    """Read a checkpoint from an address, downloading it once.

    The file is kept in ``checkpoints`` under ``torch.hub.get_dir()``, which
    follows ``TORCH_HOME`` and ``XDG_CACHE_HOME``. One process per machine
    downloads while the others wait.

    Args:
        filename: The address. The hash in a name that ends in
            ``-<8 hexadecimal digits>.pth`` is checked after the download.
        map_location: As for :func:`load_from_local`.
        model_dir: Another folder to keep the file in.
        progress: Draw a progress bar; None does so on a terminal.

    Raises:
        DownloadError: The download failed; no file is left behind.
        DamagedCheckpointError: It is no checkpoint, or an incomplete one.
        UnsafeCheckpointError: It holds a type that is not on the list.
    """
    from mmengine.dist import barrier, is_distributed

    path = cached_path(filename, model_dir)
    # MMEngine's own get_local_rank needs a group that nothing creates.
    local_rank = int(os.environ.get('LOCAL_RANK', 0)) if is_distributed() else 0
    try:
        if local_rank == 0:
            download(filename, model_dir, progress)
    except DownloadError as error:
        raise DownloadError(f'{error}, {_ADVICE}') from error
    finally:
        barrier()  # also after a failure: the others must not wait for ever
    if not os.path.exists(path):
        raise DownloadError(
            f'{filename} could not be downloaded (the first process here has no file): '
            f'put the file at {path} by hand, {_ADVICE}'
        )
    return load_from_local(path, map_location)
