"""Models and images of the rank analysis, from configs, checkpoints and folders."""

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from mmravlt.data import DataError
from mmravlt.data.files import IMAGE_SUFFIXES, list_files, need_folder
from mmravlt.data.images import image_size
from mmravlt.openmmlab.device import adapt_to_device
from mmravlt.openmmlab.weight_remapping import needs_all_weights
from mmravlt.tasks.config import dicts, innermost_dataset, type_name


def build_model(cfg: Config, checkpoint: str | None, seed: int = 0) -> nn.Module:
    """Build a config's model on the CPU, with the weights of a file or initial ones.

    Args:
        cfg (Config): a whole config of mmdet, mmseg or mmpretrain; changed where this
            machine needs it, see :func:`mmravlt.openmmlab.device.adapt_to_device`.
        checkpoint (str | None): file or address. None leaves the model untrained: no
            weights are loaded that the config names as ``Pretrained`` either.
        seed (int): of the initial weights.

    Returns:
        nn.Module: in eval mode.

    Raises:
        CheckpointError: if the file cannot be read, or lacks weights of a RAVLT.
        FileNotFoundError: if there is no such file.
    """
    scope = cfg.default_scope
    import_module(f'{scope}.models')
    cfg.optim_wrapper = None  # nothing is trained, so nothing is said about fp16
    adapt_to_device(cfg)
    settings = copy.deepcopy(cfg.model)
    if 'data_preprocessor' not in settings and cfg.get('data_preprocessor'):
        settings.data_preprocessor = cfg.data_preprocessor
    for node in dicts(settings):
        if any(type_name(x) == 'Pretrained' for x in dicts(node.get('init_cfg'))):
            node['init_cfg'] = None
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
        if checkpoint is None:
            model.init_weights()
    if checkpoint is not None:
        with needs_all_weights():
            load_checkpoint(model, checkpoint, 'cpu')
    return model.eval()


def choose_images(folder: Path, count: int) -> list[Path]:
    """Choose images of a folder, evenly spread in the order of their paths.

    Args:
        folder (Path): a folder of images, with or without subfolders; or one of data
            for training, of which those for validation are taken: from ``images`` if it
            is there, and in that from ``val…``.
        count (int): how many at most.

    Returns:
        list[Path]: the images.

    Raises:
        DataError: if there is no such folder, no image in it, or one cannot be read.
    """
    need_folder(folder)
    if (folder / 'images').is_dir():
        folder = folder / 'images'
    validation = sorted(
        p
        for p in folder.glob('val*')
        if p.is_dir() and re.fullmatch(r'val(idation|\d*)', p.name)
    )
    folder = validation[0] if validation else folder
    names = list_files(folder, IMAGE_SUFFIXES)
    if not names:
        raise DataError(
            f'the folder {folder} has no images ({", ".join(IMAGE_SUFFIXES)}) in it; '
            'give a folder with some.'
        )
    count = min(count, len(names))
    chosen = [folder / names[i * len(names) // count] for i in range(count)]
    for path in chosen:
        image_size(path)
    return chosen


def read_images(cfg: Config, model: nn.Module, paths: Sequence[Path]) -> Iterator:
    """Read images one by one as the model is tested with them.

    Args:
        cfg (Config): whose ``test_dataloader`` has the pipeline; what loads annotations
            is left out.
        model (nn.Module): built of it, whose ``data_preprocessor`` normalises and pads.
        paths (Sequence[Path]): of the images.

    Yields:
        Tensor: shape (1, 3, H, W), on the device of the model.
    """
    scope = cfg.default_scope
    import_module(f'{scope}.datasets')
    pipeline = innermost_dataset(cfg.test_dataloader.dataset).pipeline
    steps = [step for step in pipeline if 'Annotations' not in type_name(step)]
    with DefaultScope.overwrite_default_scope(scope):
        prepare = Compose(steps)
    for number, path in zip(itertools.count(), paths, strict=False):
        data = pseudo_collate([prepare(dict(img_path=str(path), img_id=number))])
        yield model.data_preprocessor(data, False)['inputs']
