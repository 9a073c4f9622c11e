"""Images, as the training will read them: by OpenCV."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from .base import DataError, DataOptions
from .depth import smallest_bit_depth, to_8_bits
from .files import check_files

# Pillow takes images of more than 179 megapixels for an attack. These are the user's
# own: satellites and microscopes take larger ones, and OpenCV reads them.
Image.MAX_IMAGE_PIXELS = None

ALL_BITS = 3  # OpenCV's IMREAD_COLOR | IMREAD_ANYDEPTH
EXIF_ORIENTATION = 0x0112
EXIF_LYING = (5, 6, 7, 8)  # orientations in which height and width change places
JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
JPEG_SCAN, JPEG_APP1 = 0xFFDA, 0xFFE1
JPEG_ALONE = (0xFF01, *range(0xFFD0, 0xFFDA))  # markers that no length follows
JPEG_FRAMES = {*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}
JPEG_USUAL = (0xFFC0, 0xFFC1, 0xFFC2)  # Huffman-coded: baseline, extended, progressive
PNG_START = b'\x89PNG\r\n\x1a\n'


class ImageInfo(NamedTuple):
    """What an image file holds.

    Attributes:
        width (int): in pixels, as the image is shown and read.
        height (int): likewise.
        stored (tuple[int, int]): width and height before EXIF turns it.
        orientation (int): EXIF's, 1 to 8; 1 is as stored.
        bits (int): per value, as OpenCV reads them: 8 or 16.
        largest (int | None): the largest value, where ``bits`` is 16.
        pages (int): of a TIFF, or frames of an animation; the first one is read.
    """

    width: int
    height: int
    stored: tuple[int, int]
    orientation: int = 1
    bits: int = 8
    largest: int | None = None
    pages: int = 1


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, as :func:`inspect_image` finds them."""
    return inspect_image(path)[:2]


def inspect_image(path: Path) -> ImageInfo:
    """Find out what an image file holds, and that OpenCV reads it.

    Of a JPEG, the markers before its first scan are read, and the end; of a PNG the
    checksums. What these do not settle, and all other images, OpenCV decodes.

    Raises:
        DataError: if the file is damaged, or is nothing that OpenCV reads.
    """
    try:
        with path.open('rb') as file:
            start = file.read(len(PNG_START))
            info = _read_jpeg(file) if start.startswith(JPEG_START) else None
            if info is None:
                file.seek(0)
                content = file.read()
        if start == PNG_START:
            info = _read_png(memoryview(content))
        if info is None or info.bits > 8:
            info = _decode(path, content, info)
        _check_limit(info)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(path, error) from None
    return info


def read_image(path: Path | str, bit_depth: int) -> np.ndarray:
    """Read an image whose values have ``bit_depth`` bits in use.

    Returns:
        ndarray: H×W×3, BGR, uint8; 0 to 255 stand for 0 to 2 ** bit_depth - 1. Images
        of 8 bits are as they are.

    Raises:
        DataError: if OpenCV cannot read it.
    """
    import cv2

    content = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(content, ALL_BITS) if content.size else None
    if pixels is None:
        raise _not_decoded(Path(path), content.tobytes())
    return to_8_bits(pixels, bit_depth)


def inspect_images(
    paths: Iterable[Path], what: str, options: DataOptions
) -> tuple[dict[Path, ImageInfo], list[str], int | None]:
    """Inspect all images of a data folder, of all its splits at once.

    Args:
        paths (Iterable[Path]): of the images; several may be equal.
        what (str): what they are, for messages, such as 'images in data'.
        options (DataOptions): with ``check``, ``bit_depth`` and ``longest_side``.

    Returns:
        tuple: what each image holds, by its path (nothing without ``check``); what a
        user should know about them, a sentence each; and how many bits their values
        use, None where no image has more than 8 per value.

    Raises:
        DataError: names the first image that cannot be read or used.
    """
    if not options.check:
        return {}, [], options.bit_depth
    paths = list(dict.fromkeys(paths))
    with quiet():
        infos = dict(zip(paths, check_files(inspect_image, paths, what), strict=True))
    for path, info in infos.items():
        check_shape(path, info, options.longest_side)
    depth_notes, bit_depth = _choose_bit_depth(infos, what, options.bit_depth)
    kinds = {
        'are turned by their EXIF orientation, and read as they are shown': [
            path for path, info in infos.items() if info.orientation != 1
        ],
        'hold several pages or frames, of which the first is read': [
            path for path, info in infos.items() if info.pages > 1
        ],
    }
    notes = [
        f'{len(found)} of {len(infos)} {what} {reason} (first: {found[0]}).'
        for reason, found in kinds.items()
        if found
    ]
    return infos, [*depth_notes, *notes], bit_depth


@contextmanager
def quiet() -> Iterator[None]:
    """Keep decoders from printing what is wrong with a file; an error will say it."""
    import cv2

    level = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        cv2.setLogLevel(level)


def check_shape(path: Path, info: ImageInfo, longest_side: int | None) -> None:
    """Refuse an image of which nothing is left when it is resized.

    Args:
        path (Path): names it.
        info (ImageInfo): with its size.
        longest_side (int | None): to how many pixels at most the longer side is
            resized, where the shape is kept.

    Raises:
        DataError: if the shorter side would then be rounded to 0 pixels.
    """
    short, long = sorted(info[:2])
    if longest_side and short * longest_side / long < 0.5:
        raise DataError(
            f'{path} is {info.width}×{info.height} pixels; resized to at most '
            f'{longest_side} pixels, as the config asks, its shorter side would have '
            'none; crop or remove it.'
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise for a file that is damaged, or is no image."""
    text = str(error).split('\n')[0]
    return DataError(
        f'{path} cannot be read as an image ({text}); replace or remove it.'
    )


def _choose_bit_depth(
    infos: dict[Path, ImageInfo], what: str, chosen: int | None
) -> tuple[list[str], int | None]:
    """How many bits of deep images are read, and a note about it."""
    deep = [info.largest for info in infos.values() if info.bits > 8]
    if not deep:
        return [], None
    bit_depth = chosen or smallest_bit_depth(max(deep))
    note = (
        f'{len(deep)} of {len(infos)} {what} hold 16 bits per value, at most '
        f'{max(deep)}: read as {bit_depth} bits; choose another with --bit-depth.'
    )
    top = 2**bit_depth - 1
    clipped = sum(largest > top for largest in deep)
    if clipped:
        note += f' In {clipped} of them, values above {top} are cut off there.'
    return [note], bit_depth


def _read_jpeg(file: BinaryIO) -> ImageInfo | None:
    """What the markers of a JPEG tell; None where it takes a decoder to tell.

    Raises:
        OSError: if the file was cut off.
    """
    size, orientation, position = None, None, 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            return None
        marker, length = struct.unpack('>HH', head)
        if marker == 0xFFFF:  # the first byte only fills
            position += 1
            continue
        if marker < 0xFF00 or marker in JPEG_ALONE:
            return None
        if marker == JPEG_SCAN:
            break
        if marker in JPEG_FRAMES:
            bits, height, width = struct.unpack('>BHH', file.read(5))
            if marker not in JPEG_USUAL or bits != 8 or not height or not width:
                return None
            size = width, height
        elif marker == JPEG_APP1:
            data = file.read(length - 2)
            if data.startswith(b'Exif\0\0'):
                turned = _orientation(data[6:])
                if orientation is not None and turned != orientation:
                    raise ValueError(  # OpenCV looks into the first such part only
                        f'its EXIF orientation is {turned}, but it comes after other '
                        'metadata, where OpenCV does not find it; save it anew'
                    )
                orientation = turned
            elif orientation is None:
                orientation = 1
        position += 2 + length
    if size is None:
        return None
    file.seek(max(os.fstat(file.fileno()).st_size - 4096, position))
    if JPEG_END not in file.read():
        file.seek(position)
        if JPEG_END not in file.read():  # no other part of a scan looks like it
            file.seek(0)
            with Image.open(file) as image:
                image.load()  # which tells whether more than the end is missing
            return None
    orientation = orientation or 1
    shown = size[::-1] if orientation in EXIF_LYING else size
    return ImageInfo(*shown, size, orientation)


def _orientation(exif: bytes) -> int:
    """The orientation that a block of EXIF gives, 1 to 8."""
    order = {b'II': '<', b'MM': '>'}.get(exif[:2])
    try:
        (start,) = struct.unpack_from(f'{order}I', exif, 4)
        (count,) = struct.unpack_from(f'{order}H', exif, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(f'{order}H6xH', exif, position)
            if tag == EXIF_ORIENTATION:
                return value if value in range(1, 9) else 1
    except struct.error:
        pass  # a damaged block turns nothing
    return 1


def _read_png(content: memoryview) -> ImageInfo:
    """What the chunks of a PNG tell.

    Raises:
        ValueError: if a checksum is wrong, the end is missing, or EXIF turns it.
    """
    position, kind, size, bits, pages = len(PNG_START), b'', (0, 0), 8, 1
    try:
        while kind != b'IEND':
            length, kind = struct.unpack_from('>I4s', content, position)
            end = position + 8 + length
            (checksum,) = struct.unpack_from('>I', content, end)
            if zlib.crc32(content[position + 4 : end]) != checksum:
                raise ValueError(f'the checksum of its chunk {kind.decode()} is wrong')
            if kind == b'IHDR':
                *size, bits = struct.unpack_from('>IIB', content, position + 8)
            elif kind == b'acTL':
                (pages,) = struct.unpack_from('>I', content, position + 8)
            elif kind == b'eXIf':
                _refuse_turned(_orientation(bytes(content[position + 8 : end])))
            position = end + 4
    except struct.error:
        raise ValueError('it is cut off') from None
    return ImageInfo(*size, tuple(size), bits=16 if bits > 8 else 8, pages=pages)


def _refuse_turned(orientation: int) -> None:
    """Refuse that of a file other than JPEG: versions of OpenCV differ on it."""
    if orientation in range(2, 9):  # others, as the 0 of some scanners, turn nothing
        raise ValueError(f'its EXIF orientation is {orientation}; save it upright')


def _decode(path: Path, content: bytes, known: ImageInfo | None) -> ImageInfo:
    """What OpenCV makes of an image, with all its bits."""
    import cv2

    pages = known.pages if known else 1
    if known is None and not content.startswith(JPEG_START):
        try:
            with Image.open(io.BytesIO(content)) as image:
                pages = getattr(image, 'n_frames', 1)
                orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        except Exception:  # Pillow raises many kinds; it need not know the format
            orientation = 1
        _refuse_turned(orientation)
    pixels = None
    if content:
        try:
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), ALL_BITS)
        except cv2.error as error:
            if 'pixels' in str(error).lower():
                raise ValueError(_limit_text()) from None
    if pixels is None:
        raise _not_decoded(path, content)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f'{path} has pixels of type {pixels.dtype}; images of 8 or 16 bits per '
            'value can be read: save it as PNG of 8 or 16 bits.'
        )
    height, width = pixels.shape[:2]
    size = width, height
    if pixels.dtype == np.uint8:
        return ImageInfo(*size, size, pages=pages)
    return ImageInfo(*size, size, bits=16, largest=int(pixels.max()), pages=pages)


def _not_decoded(path: Path, content: bytes) -> DataError:
    """What to raise for an image that OpenCV does not read."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            compression = image.info.get('compression')
            kind = [image.format, f'mode {image.mode}']
            kind += [f'compression {compression}'] if compression else []
    except Exception as error:  # Pillow raises many kinds for a damaged file
        text = 'it is damaged or of no known format'
        return unreadable(path, error if 'truncated' in str(error) else Exception(text))
    return DataError(
        f'{path} cannot be read as an image by OpenCV, which loads the images here '
        f'({", ".join(kind)}); save it as JPEG, or as PNG of 8 or 16 bits.'
    )


def _limit() -> int:
    """How many pixels OpenCV reads at most."""
    given = os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS', '')
    return int(given) if given.isdigit() else 2**30


def _limit_text() -> str:
    return (
        f'it has more than {_limit()} pixels, at which OpenCV stops: set the '
        'environment variable OPENCV_IO_MAX_IMAGE_PIXELS to more, or cut it into tiles'
    )


def _check_limit(info: ImageInfo) -> None:
    """Refuse an image that was not decoded and is too large for it."""
    if info.width * info.height > _limit():
        raise ValueError(_limit_text())
