"""The tasks that configs are for; each file of one fills in a record of all it needs.

A further task is such a file and its place in :data:`TASKS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data import DataError, DataOptions, Prepared
from .base import Task, TaskError
from .classification import CLASSIFICATION
from .config import keep_all_bits, longest_side
from .detection import DETECTION
from .panoptic import PANOPTIC
from .segmentation import SEGMENTATION

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = [
    *('LIBRARIES', 'TASKS', 'DataError', 'Task', 'TaskError', 'of'),
    'use_custom_data',
]

#: Where a library has several, the later ones are special cases.
TASKS = (DETECTION, SEGMENTATION, CLASSIFICATION, PANOPTIC)
#: Packages that the tasks come from.
LIBRARIES = tuple(dict.fromkeys(task.package for task in TASKS))


def of(cfg: Config) -> Task:
    """The task of a config, by its library (``default_scope``) and its model.

    Raises:
        TaskError: if its library is none of those.
    """
    scope = cfg.get('default_scope')
    for task in reversed(TASKS):
        if task.package == scope and task.recognises(cfg):
            return task
    raise TaskError(
        f'the config must have a default_scope out of {", ".join(LIBRARIES)} (it has '
        f'{scope!r})'
    )


def use_custom_data(
    cfg: Config, folder: str, training: bool = True, **options
) -> Prepared:
    """Make ``cfg`` train and evaluate on the data in ``folder``.

    The layout of the folder goes by the task of the config. Classes, every head's
    ``num_classes``, datasets and evaluators follow the folder; the pipelines and the
    schedule stay the config's.

    Args:
        cfg (Config): config of a model of any of the tasks, changed in place.
        folder (str): the data.
        training (bool): False leaves the training data alone, which the folder
            then need not have.
        options: of :class:`mmravlt.data.DataOptions`.

    Returns:
        Prepared: what was found.

    Raises:
        DataError: if the config cannot take other data or the folder is not
            what is needed.
    """
    try:
        task = of(cfg)
    except TaskError as error:
        raise DataError(
            f'--data: {error}; set its data paths with --cfg-options instead.'
        ) from None
    splits = ('train', 'val') if training else ('val',)
    used = ('train_dataloader', 'val_dataloader') if training else ('test_dataloader',)
    for loader in used:
        if not cfg.get(loader):
            raise DataError(f'--data needs a config with a {loader}; it has none.')
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataError(f'--data {folder}: there is no such folder.')
    options.setdefault('longest_side', longest_side(cfg, used))
    data = task.use_data(cfg, root, DataOptions(splits=splits, **options))
    keep_all_bits(cfg, data.bit_depth, used)
    return data
