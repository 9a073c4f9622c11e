"""Small projects with weights that were never trained, to test and predict with."""

import os
from importlib import import_module

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmravlt.tasks import use_custom_data
from mmravlt.tasks.config import keep_all_bits

from .tiny import write_project


def write_untrained(folder, library, bit_depth=None):
    """Write data, ``config.py`` as a training leaves it, and ``weights.pth``.

    Args:
        folder (Path): where to.
        library (str): mmdet, mmseg or mmpretrain.
        bit_depth (int | None): of images with more than 8 bits per value.
    """
    write_project(folder, library)
    cfg = Config.fromfile(folder / 'config.py')
    if library == 'mmdet':
        use_custom_data(cfg, str(folder / 'data'), training=False)
    keep_all_bits(cfg, bit_depth, ['test_dataloader'])
    cfg.dump(folder / 'config.py')
    import_module(f'{library}.models')
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(cfg.model)
    weights = dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text))
    torch.save(weights, folder / 'weights.pth')


def move(source, target):
    """Move a file into a folder that need not exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
