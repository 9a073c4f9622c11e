"""Point a config at the user's own data: the flag ``--data`` of the tools."""

from pathlib import Path

from mmengine.config import Config

from .classification import use_classification_data
from .common import DataError
from .detection import use_detection_data
from .segmentation import use_segmentation_data

__all__ = ['DataError', 'use_custom_data']

TASKS = dict(
    mmdet=use_detection_data,
    mmseg=use_segmentation_data,
    mmpretrain=use_classification_data,
)


def use_custom_data(cfg: Config, folder: str, training: bool = True) -> None:
    """Make ``cfg`` train and evaluate on the data in ``folder``.

    The layout of the folder goes by the library (``default_scope``) of the
    config; each is described by the function in ``TASKS``. Classes, every
    head's ``num_classes``, datasets and evaluators follow the folder; the
    pipelines and the schedule stay the config's.

    Args:
        cfg (Config): config of a detector, a segmentor or a classifier,
            changed in place.
        folder (str): the data.
        training (bool): False leaves the training data alone, which the folder
            then need not have.

    Raises:
        DataError: if the config cannot take other data or the folder is not
            what is needed.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise DataError(
            f'--data needs a config of {", ".join(TASKS)} (its default_scope), but '
            f'this one has {scope!r}; set its data paths with --cfg-options instead.'
        )
    used = ('train_dataloader', 'val_dataloader') if training else ('test_dataloader',)
    for loader in used:
        if not cfg.get(loader):
            raise DataError(f'--data needs a config with a {loader}; it has none.')
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataError(f'--data {folder}: there is no such folder.')
    TASKS[scope](cfg, root, training)
