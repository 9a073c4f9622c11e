"""RAVLT, the Rank-Augmented Vision Linear Transformer, for PyTorch and OpenMMLab.

Where MMEngine is installed, importing this package makes ``type='RAVLT'`` (and
``type='L2ViT'``, a second linear vision transformer) known to mmdet, mmseg and
mmpretrain and bridges what today's torch needs of them, so a config needs only
``custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)``. With PyTorch
alone, the same models are built by :func:`create_model` or by their classes.
"""

import sys
from pathlib import Path

from .foundation import has_mmengine
from .version import __version__

__all__ = [
    '__version__',
    'activate',
    'config_path',
    'create_model',
    'list_models',
    'optimize_for_inference',
]


def config_path(name: str) -> str:
    """Where a config of this package lies, to inherit from in another project.

    In a config: ``_base_ =
    __import__('mmravlt').config_path('mmdet/mask_rcnn_ravlt_s_3x.py')``

    Args:
        name (str): path below ``configs``.

    Returns:
        str: absolute path.

    Raises:
        FileNotFoundError: if there is no such config.
    """
    package = Path(__file__).resolve().parent
    installed = package / '.mim/configs'
    folder = installed if installed.is_dir() else package.parent / 'configs'
    path = folder / name
    if not path.is_file():
        leaves = (p.relative_to(folder) for p in folder.glob('mm*/**/*.py'))
        known = sorted(str(leaf) for leaf in leaves if '_base_' not in leaf.parts)
        raise FileNotFoundError(
            f'mmravlt has no config {name!r}; it has {", ".join(known)}.'
        )
    return str(path)


def activate() -> None:
    """Make the models known, and MMEngine, where it is installed, ready for them.

    Importing mmravlt does this, except in its own commands, which read their arguments
    first. May be called any number of times.
    """
    global create_model, list_models, optimize_for_inference
    if has_mmengine():
        from . import compat, openmmlab

        compat.install()
        openmmlab.install()

    from . import models  # noqa: F401  (registers the backbones)
    from .inference import optimize_for_inference
    from .zoo import create_model, list_models


def _is_command() -> bool:
    """Whether Python was started with ``-m mmravlt``, or with one of the tools.

    The doctor must be able to speak about a broken installation, and help be there at
    once. A tool says what it is before it imports mmravlt; the workers of its loaders,
    which import it under another name, need all there is.
    """
    if hasattr(sys.modules.get('__main__'), 'IS_COMMAND_OF_MMRAVLT'):
        return True
    arguments = iter(sys.orig_argv)
    return '-m' in arguments and next(arguments, None) == 'mmravlt'


if not _is_command():
    activate()
