"""Data for classifiers: images, each of one class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once, write_text
from .files import IMAGE_SUFFIXES
from .findings import Findings
from .images import inspect_images
from .layouts import choose_layout
from .layouts.class_folders import CLASS_FOLDERS
from .layouts.class_table import CLASS_TABLE
from .listing import Listing, count_files_used_twice, split_listings

LAYOUTS = (CLASS_FOLDERS, CLASS_TABLE)


def prepare_classes(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check images and their classes.

    Args:
        root (Path): in one of :data:`LAYOUTS`.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: each split has ``ann_file``, a text whose lines are the path of an
        image, a blank and the index of its class, and the number of ``images``.

    Raises:
        DataError: says what is wrong and what to do.
    """
    return prepare_once(
        root, 'classification', options, partial(_prepare, root, options)
    )


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    layout = choose_layout(root, LAYOUTS)
    listings = layout.read(root, options.splits)
    listings, notes = split_listings(listings, root, options, folder, by_class=True)
    listings = {split: listings[split] for split in options.splits}
    classes = listings[options.splits[0]].classes
    if len(classes) < 2:
        raise DataError(
            f'{root} has the one class {classes[0]!r}; a classifier tells at least two '
            'apart.'
        )
    findings = Findings()
    paths = [path for listing in listings.values() for path, _ in listing.pairs]
    _, seen, bit_depth = inspect_images(paths, f'images in {root}', options)
    splits = {}
    for split in sorted(listings, reverse=True):  # val first
        listing = listings[split]
        for reason, example, count in listing.odd:
            findings.add(split, reason, example, count)
        filled = {name for _, name in listing.pairs}
        absent = [name for name in classes if name not in filled]
        if absent and split == 'train':
            raise DataError(
                f'{listing.source / absent[0]} has no images '
                f'({", ".join(IMAGE_SUFFIXES)}); add some or remove the class from '
                'train and val.'
            )
        if absent:
            reason = 'classes have no images, so no score'
            findings.add(split, reason, absent[0], len(absent))
        splits[split] = _write(listing, folder / f'{split}.txt')
    if options.check:
        count_files_used_twice(listings, findings)
    notes += findings.notes() + seen
    return Prepared(layout.name, list(classes), splits, notes, bit_depth)


def _write(listing: Listing, ann_file: Path) -> dict:
    """Write the list that training reads, and say what it is."""
    indices = {name: i for i, name in enumerate(listing.classes)}
    lines = []
    for path, name in listing.pairs:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise DataError(
                f'{str(path)!r} has a name that is no UTF-8; rename it.'
            ) from None
        if '\n' in str(path) or '\r' in str(path):
            raise DataError(f'{str(path)!r} has a line break in its name; rename it.')
        lines.append(f'{path} {indices[name]}\n')
    write_text(ann_file, ''.join(lines))
    return dict(ann_file=str(ann_file), images=len(lines))
