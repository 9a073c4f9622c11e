"""Images, as the training will read them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .base import DataError

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
