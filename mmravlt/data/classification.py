"""Data for classifiers: images, each of one class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once
from .files import IMAGE_SUFFIXES, list_files, need_folder
from .images import inspect_images


def prepare_classes(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check folders of images.

    Args:
        root (Path): holds ``train/<class>/…`` and ``val/<class>/…``. The classes
            are the sorted names of the folders in ``train``, or in ``val``
            where there is no ``train``.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: each split has ``folder`` and the number of ``images``.

    Raises:
        DataError: says what is wrong and what to do.
    """
    return prepare_once(
        root, 'classification', options, partial(_prepare, root, options)
    )


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    training = 'train' in options.splits
    classes = read_class_names(root / 'val')
    if training or (root / 'train').is_dir():
        val_classes, classes = classes, read_class_names(root / 'train')
        _check_same_classes(root, classes, val_classes)
    if len(classes) < 2:
        raise DataError(
            f'{root} has the one class {classes[0]!r}; a classifier tells at least two '
            'apart.'
        )
    splits, paths = {}, []
    for split in sorted(options.splits, reverse=True):  # val first
        found = find_images(root / split, classes if split == 'train' else ())
        splits[split] = dict(folder=str(root / split), images=len(found))
        paths += found
    _, notes, bit_depth = inspect_images(paths, f'images in {root}', options)
    return Prepared('class folders', list(classes), splits, notes, bit_depth)


def read_class_names(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in ``folder``."""
    need_folder(folder, 'with one subfolder per class')
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise DataError(
            f'{folder} holds no folders; it must have one for each class, with the '
            'images of that class.'
        )
    hidden = [name for name in names if name.startswith('.')]
    if hidden:  # mmpretrain would count it too
        raise DataError(
            f'{folder} holds the hidden folder {hidden[0]}, which would count as a '
            'class; remove it.'
        )
    return tuple(names)


def _check_same_classes(
    root: Path, classes: tuple[str, ...], val_classes: tuple[str, ...]
) -> None:
    """mmpretrain numbers the folders of each split on their own."""
    for name in val_classes:
        if name not in classes:
            raise DataError(
                f'{root / "val"} has the class {name!r}, but {root / "train"} does '
                'not; add training images of it or remove the folder.'
            )
    for name in classes:
        if name not in val_classes:
            raise DataError(
                f'{root / "train"} has the class {name!r}, but {root / "val"} does '
                'not; make that folder, empty if there are no images to score it on.'
            )


def find_images(folder: Path, needed: tuple[str, ...]) -> list[Path]:
    """Find the images of one split.

    Args:
        folder (Path): holds one folder per class.
        needed (tuple[str]): classes that must have images.

    Raises:
        DataError: names the first class without one.
    """
    files = [name for name in list_files(folder, IMAGE_SUFFIXES) if '/' in name]
    filled = {name.split('/')[0] for name in files}
    for name in needed:
        if name not in filled:
            raise DataError(
                f'{folder / name} has no images ({", ".join(IMAGE_SUFFIXES)}); add '
                'some or remove the class from train and val.'
            )
    if not filled:
        raise DataError(f'{folder} has no images ({", ".join(IMAGE_SUFFIXES)}).')
    return [folder / name for name in files]
