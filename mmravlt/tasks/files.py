"""Files and folders of images, as all tasks check them."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from .base import DataError

# Files with other suffixes are not taken for images. Case does not matter.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')

# Formats, as Pillow calls them, that every OpenCV reads
READABLE = ('JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP')

# Kinds of pixels, as Pillow calls them, that every OpenCV reads
READABLE_MODES = (
    *('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK'),
    *('I;16', 'I;16B', 'I;16L'),
)

JPEG_END = b'\xff\xd9'
EXIF_ORIENTATION = 0x0112
EXIF_LYING = (5, 6, 7, 8)  # orientations in which height and width change places


def is_first_process() -> bool:
    """Whether this is the one of several processes that checks every file."""
    return int(os.environ.get('RANK', 0)) == 0


def need_folder(folder: Path, described: str = '') -> None:
    """Raise DataError if a folder is missing, and tell what is there instead."""
    if not folder.parent.is_dir():
        need_folder(folder.parent)
    if folder.is_dir():
        return
    found = ', '.join(sorted(path.name for path in folder.parent.iterdir())[:10])
    raise DataError(
        f'{folder.parent} must hold a folder {f"{folder.name} {described}".strip()}; '
        f'found there: {found or "nothing"}.'
    )


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Files below ``folder`` as MMEngine's datasets list them.

    Args:
        folder (Path): where to look, subfolders and links included.
        suffixes (tuple[str]): in lower case; those of the files may be in any.

    Returns:
        list[str]: sorted paths relative to ``folder``, with forward slashes.
    """
    names = []
    for parent, _, files in os.walk(folder, followlinks=True):
        start = Path(os.path.relpath(parent, folder))
        names += [
            (start / name).as_posix()
            for name in files
            if name.lower().endswith(suffixes) and not name.startswith('.')
        ]
    return sorted(names)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, as it is shown.

    Reads little: of a PNG the checksums, of others the header; a JPEG without
    an end is decoded, which fails if the file was cut off.

    Raises:
        DataError: if the file is no image, or one that only Pillow reads.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format not in READABLE:
                raise ValueError(f'it is of the format {image.format}')
            orientation = _orientation(image)
            if image.format not in ('JPEG', 'MPO'):
                if orientation != 1:  # versions of OpenCV differ on it
                    raise ValueError(f'its EXIF orientation is {orientation}')
                if image.mode not in READABLE_MODES:
                    raise ValueError(f'its pixels are of the mode {image.mode}')
                image.verify()
                return width, height
            lying = orientation in EXIF_LYING
            with path.open('rb') as file:
                file.seek(max(path.stat().st_size - 4096, 0))
                if JPEG_END not in file.read():
                    image.load()
            return (height, width) if lying else (width, height)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(path, error) from None


def _orientation(image: Image.Image) -> int:
    """How the image is to be turned; 1 for not at all."""
    if image.format == 'PNG' and 'exif' not in image.info:
        return 1  # getexif would decode all of it to find out
    return image.getexif().get(EXIF_ORIENTATION, 1)


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise for a file that Pillow cannot read."""
    text = str(error).split('\n')[0]
    return DataError(
        f'{path} cannot be read as an image ({text}); replace or remove it.'
    )


def check_files(check: Callable, items: list, what: str) -> list:
    """Call ``check`` on all items, in threads, and tell how far it is.

    Args:
        check (Callable): takes one item; may raise DataError.
        items (list): what to check.
        what (str): what the items are, to be printed.

    Returns:
        list: what ``check`` returned, in the order of ``items``.

    Raises:
        DataError: that of the first item, in their order, that has one.
    """
    results = []
    told = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), 500):
            results += pool.map(check, items[start : start + 500])
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f'--data: checked {len(results)} of {len(items)} {what}')
    return results
