"""What the tools that train, test and predict have in common."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from . import tasks
from .checkpoint import CheckpointError
from .commands import need_config
from .commands.console import aloud, say
from .data import Prepared
from .data.files import IMAGE_SUFFIXES
from .data.images import check_shape, inspect_image, quiet
from .inference import optimize_for_inference
from .openmmlab.device import use_device
from .tasks.config import dicts, innermost_dataset, palette

Change = Callable[[Config, Prepared | None], None]


def data_options(args: argparse.Namespace) -> dict:
    """The options for ``--data`` as :class:`mmravlt.data.DataOptions` names them."""
    return dict(
        val_fraction=args.val_fraction,
        check=not args.no_check,
        bit_depth=args.bit_depth,
    )


def optimized(model: nn.Module) -> nn.Module:
    """Prepare a model with all its weights for ``--optimize``.

    Exits with one sentence if the model has no RAVLT.

    Args:
        model (nn.Module): is put into eval mode, and its backbone replaced.
    """
    with exit_on(ValueError):
        return optimize_for_inference(model.eval())


def existing_device(name: str) -> str:
    """Check a device that the command line names, such as cpu or cuda:1."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError):  # the latter: torch knows no GPUs
        raise argparse.ArgumentTypeError(
            f'{name} is no device of this machine; use cpu, or leave --device out'
        ) from None
    return name


def use_chosen_device(name: str | None) -> None:
    """Let MMEngine's runners use the device of ``--device``, if it is given.

    Exits with one sentence if this machine has no such device.
    """
    if name:
        with exit_on(argparse.ArgumentTypeError):
            use_device(existing_device(name))


def find_images(
    places: list[str], longest_side: int | None = None
) -> tuple[list[Path], list[str]]:
    """Find the images in files and folders.

    Args:
        places (list[str]): paths; folders inside of folders are not searched.
        longest_side (int | None): to how many pixels at most the longer side is
            resized, where the shape is kept.

    Returns:
        tuple: the readable images, and one sentence for each file or folder that
        is missing, cannot be read, is too narrow or has no images in it.
    """
    found, problems = [], []
    for place in map(Path, places):
        inside = [place] if place.is_file() else []
        if place.is_dir():
            kinds = ', '.join(IMAGE_SUFFIXES)
            inside = [
                p
                for p in place.iterdir()
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.')
            ]
            if not inside:
                problems.append(f'the folder {place} has no images ({kinds}) in it')
        elif not inside:
            problems.append(f'there is no image or folder {place}')
        for path in sorted(inside):
            try:
                with quiet():
                    check_shape(path, inspect_image(path), longest_side)
                found.append(path)
            except tasks.DataError as error:
                problems.append(str(error).removesuffix('.'))
    return list(dict.fromkeys(found)), problems


def name_classes(meta: dict, cfg: Config) -> dict:
    """Name the classes of a model, and give each a colour.

    Args:
        meta (dict): of the checkpoint; where it names no classes, the test dataset
            of ``cfg`` does, else they are numbers. No data is opened.
        cfg (Config): a whole config, with ``default_scope``.

    Returns:
        dict: ``classes``, a list of names, and ``palette``, a list of as many RGB
        colours (0–255).
    """
    meta = {key.lower(): v for key, v in (meta.get('dataset_meta') or meta).items()}
    if not meta.get('classes'):
        dataset = innermost_dataset(cfg.test_dataloader.dataset)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            meta = DATASETS.build({**dataset, 'lazy_init': True}).metainfo
    heads = [node for node in dicts(cfg.model) if 'num_classes' in node]
    numbers = range(max((head['num_classes'] for head in heads), default=0))
    classes = list(meta.get('classes') or map(str, numbers))
    colours = meta.get('palette') or ()
    if len(colours) != len(classes):
        colours = palette(len(classes))
    return dict(classes=classes, palette=list(map(tuple, colours)))


def read_config(
    path: str,
    options: dict | None = None,
    data: str | None = None,
    training: bool = False,
    data_options: dict | None = None,
    resize: Callable[[Config], None] | None = None,
    change: Change | None = None,
) -> Config:
    """Read a config and change it as the command line says.

    Exits with one sentence if the config or the data folder cannot be used.

    Args:
        path (str): of the config file.
        options (dict | None): of ``--cfg-options``; they have the last word.
        data (str | None): the folder of ``--data``.
        training (bool): whether that must have training data.
        data_options (dict | None): of :class:`mmravlt.data.DataOptions`.
        resize (Callable | None): takes the config before ``--data``, whose images are
            checked against the sizes in it.
        change (Callable | None): takes the config, after ``--data`` and before
            ``--cfg-options``, and what was found of the data, if any.
    """
    need_config(path)
    cfg = Config.fromfile(path)
    prepared = None
    if resize:
        resize(cfg)
    if data:
        with exit_on(tasks.DataError), aloud():
            prepared = tasks.use_custom_data(
                cfg, data, training, **(data_options or {})
            )
        say(*(f'--data: {line}' for line in (prepared.found, *prepared.notes)))
    if change:
        change(cfg, prepared)
    if options:
        cfg.merge_from_dict(options)
    return cfg


def read_run_config(
    args: argparse.Namespace,
    training: bool,
    resize: Callable[[Config], None] | None = None,
    change: Change | None = None,
) -> Config:
    """Read the config of a training or a test.

    Args:
        args (Namespace): of :mod:`mmravlt.commands.arguments`.
        training (bool): whether ``--data`` must have training data.
        resize, change (Callable | None): as for :func:`read_config`.
    """
    options = data_options(args)
    cfg = read_config(
        args.config, args.cfg_options, args.data, training, options, resize, change
    )
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextmanager
def exit_on(*errors: type[Exception]) -> Iterator[None]:
    """End the program with the message of these errors, without a traceback."""
    try:
        yield
    except errors as error:
        raise SystemExit(f'error: {error}') from None


@contextmanager
def exit_on_missing_files() -> Iterator[None]:
    """End the program with one sentence where a checkpoint or the data is missing."""
    try:
        with exit_on(CheckpointError):
            yield
    except FileNotFoundError as error:
        raise SystemExit(
            f'error: {error}; put it there, or give a folder of your own with --data'
        ) from None
