"""Which part of data without splits of its own is for validation."""

from __future__ import annotations

import random
from pathlib import Path

from .base import DataError, DataOptions
from .cache import write_text
from .objects import ObjectTables


def choose_validation(count: int, root: Path, options: DataOptions) -> list[int]:
    """Choose some of ``count`` images, the same ones each time.

    Args:
        count (int): number of images.
        root (Path): the folder that they are in, for messages.
        options (DataOptions): with ``val_fraction`` and ``seed``.

    Returns:
        list[int]: sorted indices, at least one of them, and not all.

    Raises:
        DataError: if no fraction was given or there are fewer than two images.
    """
    fraction = options.val_fraction
    if fraction is None:
        raise DataError(
            f'{root} has no validation part; add one, or let a part of the images be '
            'it with --val-fraction 0.2.'
        )
    if not 0 < fraction < 1:
        raise DataError(f'--val-fraction must be between 0 and 1; it is {fraction}.')
    if count < 2:
        raise DataError(
            f'{root} has {count} image(s), which cannot be split in two; add more.'
        )
    chosen = min(max(round(count * fraction), 1), count - 1)
    return sorted(random.Random(options.seed).sample(range(count), chosen))


def note_choice(
    names: list[str], count: int, root: Path, options: DataOptions, folder: Path
) -> str:
    """List the images chosen for validation in a file, and say so.

    Args:
        names (list[str]): of these images.
        count (int): of all images.
        root (Path): the folder that they are in.
        options (DataOptions): with ``val_fraction`` and ``seed``.
        folder (Path): where the file goes.
    """
    listed = folder / 'validation.txt'
    text = ''.join(f'{name}\n' for name in names)
    write_text(listed, text.encode(errors='backslashreplace').decode())
    return (
        f'{root} has no validation part: of its {count} images, {count - len(names)} '
        f'are for training and {len(names)} for validation, chosen with --val-fraction '
        f'{options.val_fraction} and the seed {options.seed}; {listed} lists the '
        'latter.'
    )


def note_unused(root: Path, options: DataOptions) -> list[str]:
    """Say of data with a validation part that no fraction was chosen of it."""
    if options.val_fraction is None:
        return []
    return [f'--val-fraction is not used: {root} has a part for validation.']


def part_of(tables: ObjectTables, images: set) -> ObjectTables:
    """The tables of some of the images.

    Args:
        tables (ObjectTables): of all images.
        images (set): ids of those to keep.
    """
    content = tables.content
    part = dict(
        content,
        images=[row for row in content['images'] if row['id'] in images],
        annotations=[x for x in content['annotations'] if x['image_id'] in images],
        categories=list(content['categories']),
    )
    return ObjectTables(tables.source, tables.image_dir, part, changed=True)
