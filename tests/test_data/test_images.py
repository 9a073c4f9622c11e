"""Images are found out as training reads them, and refused where it cannot."""

import io
import struct
import zlib

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmravlt.data import DataError, DataOptions
from mmravlt.data.images import (
    image_size,
    inspect_image,
    inspect_images,
    read_image,
)

SHAPE = (48, 64)


def photo(shape=SHAPE):
    """Noise over a slope; no format makes it small."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 200, shape[1])[None, :, None]
    return (slope + rng.integers(0, 56, (*shape, 3))).astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def app1(data):
    return b'\xff\xe1' + struct.pack('>H', len(data) + 2) + data


def with_thumbnail(image):
    """A JPEG whose EXIF holds a smaller JPEG, as cameras write it."""
    thumbnail = saved(image.resize((16, 12)), 'JPEG')
    assert thumbnail.endswith(b'\xff\xd9')
    entries = struct.pack('<HHII', 0x0201, 4, 1, 44)
    entries += struct.pack('<HHII', 0x0202, 4, 1, len(thumbnail))
    exif = b'II*\0' + struct.pack('<IHI', 8, 0, 14)
    exif += struct.pack('<H', 2) + entries + struct.pack('<I', 0)
    exif += thumbnail
    content = saved(image, 'JPEG')
    return content[:2] + app1(b'Exif\0\0' + exif) + content[2:]


MULTI = dict(save_all=True, append_images=[Image.fromarray(255 - photo())])
WHOLE = {
    'jpeg': ('JPEG', {}),
    'progressive': ('JPEG', dict(progressive=True)),
    'png': ('PNG', {}),
    'bmp': ('BMP', {}),
    'tiff': ('TIFF', {}),
    'lzw': ('TIFF', dict(compression='tiff_lzw')),
    'webp': ('WEBP', {}),
    'gif': ('GIF', {}),
}


@pytest.mark.parametrize('kind', WHOLE)
def test_whole_images_are_read(kind, tmp_path):
    name, options = WHOLE[kind]
    path = tmp_path / 'a.img'
    path.write_bytes(saved(Image.fromarray(photo()), name, **options))
    assert inspect_image(path) == (64, 48, (64, 48), 1, 8, None, 1)
    assert mmcv.imread(path).shape == (48, 64, 3)


@pytest.mark.parametrize('part', [0, 0.01, 0.2, 0.6, 0.97])
@pytest.mark.parametrize('kind', [*WHOLE, 'thumbnail'])
def test_cut_images_are_named(kind, part, tmp_path):
    image = Image.fromarray(photo((240, 320)))
    if kind == 'thumbnail':
        content = with_thumbnail(image)
    else:
        name, options = WHOLE[kind]
        content = saved(image, name, **options)
    path = tmp_path / 'a.img'
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match=f'^{path} cannot be read as an image') as told:
        inspect_image(path)
    assert str(told.value).endswith('replace or remove it.')
    path.write_bytes(content)
    assert image_size(path) == (320, 240)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(saved(Image.fromarray(photo()), 'JPEG') + bytes(10_000))
    assert image_size(path) == (64, 48)


def test_a_wrong_checksum_of_a_png_is_named(tmp_path):
    content = bytearray(saved(Image.fromarray(photo()), 'PNG'))
    content[content.index(b'IDAT') + 100] ^= 1
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(DataError, match='the checksum of its chunk IDAT is wrong'):
        inspect_image(tmp_path / 'a.png')


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK'])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'JPEG'])
def test_kinds_of_pixels_that_opencv_turns_into_three_channels(mode, kind, tmp_path):
    image = Image.fromarray(photo()).convert(mode)
    if (kind, mode) in [('PNG', 'CMYK'), *(('JPEG', m) for m in ('1', 'LA', 'P'))]:
        pytest.skip('the format has no such pixels')
    if (kind, mode) == ('JPEG', 'RGBA'):
        image = image.convert('YCbCr')
    (tmp_path / 'a.img').write_bytes(saved(image, kind))
    assert inspect_image(tmp_path / 'a.img') == (64, 48, (64, 48), 1, 8, None, 1)
    assert mmcv.imread(tmp_path / 'a.img').shape == (48, 64, 3)


@pytest.mark.parametrize('orientation', range(10))
def test_jpegs_are_turned_as_opencv_turns_them(orientation, tmp_path):
    path = tmp_path / 'a.jpg'
    Image.fromarray(photo()).save(path, exif=turned(orientation))
    info = inspect_image(path)
    height, width = mmcv.imread(path).shape[:2]
    assert info[:2] == (width, height)
    assert info.stored == (64, 48)
    assert info.orientation == (orientation if 1 <= orientation <= 8 else 1)


def test_an_orientation_that_opencv_overlooks_is_named(tmp_path):
    content = saved(Image.fromarray(photo()), 'JPEG')
    late = app1(b'Exif\0\0' + turned(6).tobytes().removeprefix(b'Exif\0\0'))
    other = app1(b'http://ns.adobe.com/xap/1.0/\0<x/>')
    path = tmp_path / 'a.jpg'
    path.write_bytes(content[:2] + other + late + content[2:])
    assert mmcv.imread(path).shape == (48, 64, 3)
    with pytest.raises(
        DataError, match='its EXIF orientation is 6, but it comes after'
    ):
        inspect_image(path)
    path.write_bytes(content[:2] + late + other + content[2:])
    assert inspect_image(path)[:2] == mmcv.imread(path).shape[1::-1] == (48, 64)


@pytest.mark.parametrize('suffix', ['png', 'webp', 'tiff'])
def test_a_turned_image_that_opencv_may_not_turn_is_named(suffix, tmp_path):
    path = tmp_path / f'turned.{suffix}'
    Image.new('RGB', (64, 48)).save(path, exif=turned(6))
    with pytest.raises(DataError, match='its EXIF orientation is 6'):
        image_size(path)
    for nothing in (0, 1, 9):  # the first is that of some scanners
        Image.new('RGB', (64, 48)).save(path, exif=turned(nothing))
        assert image_size(path) == (64, 48)


@pytest.mark.parametrize(
    'name,kind,options,told',
    [
        (
            'a.tiff',
            'TIFF',
            dict(compression='zstd'),
            'TIFF, mode RGB, compression zstd',
        ),
        (
            'a.tiff',
            'TIFF',
            dict(compression='lzma'),
            'TIFF, mode RGB, compression lzma',
        ),
        ('a.bmp', 'DIB', {}, 'DIB, mode RGB'),
        ('a.jpg', 'ICO', {}, 'ICO, mode RGB'),
    ],
)
def test_what_only_others_read_is_named_with_its_format(
    name, kind, options, told, tmp_path
):
    try:
        content = saved(Image.fromarray(photo()), kind, **options)
    except OSError:
        pytest.skip('this Pillow does not write it')
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        inspect_image(path)
    assert cv2.imread(str(path)) is None
    assert f'{path} cannot be read as an image by OpenCV' in str(error.value)
    assert told in str(error.value)
    assert 'save it as JPEG, or as PNG' in str(error.value)


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_an_image_with_other_than_8_or_16_bits_is_named(mode, tmp_path):
    Image.new(mode, (64, 48)).save(tmp_path / 'deep.tiff')
    with pytest.raises(DataError, match=f'TIFF, mode {mode}, .*PNG of 8 or 16 bits'):
        image_size(tmp_path / 'deep.tiff')
    values = np.zeros((48, 64, 3), np.float32)
    cv2.imwrite(str(tmp_path / 'float.tiff'), values)
    with pytest.raises(DataError, match='float.tiff .*PNG of 8 or 16 bits'):
        image_size(tmp_path / 'float.tiff')


def test_images_larger_than_pillow_allows_are_read(tmp_path, recwarn):
    Image.new('1', (14000, 13000)).save(tmp_path / 'large.png')
    assert image_size(tmp_path / 'large.png') == (14000, 13000)
    with Image.open(tmp_path / 'large.png') as opened:
        assert opened.size == (14000, 13000)
    assert not recwarn


def test_the_limit_of_opencv_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '3000')
    for suffix in ('jpg', 'png'):
        path = tmp_path / f'a.{suffix}'
        Image.fromarray(photo()).save(path)
        with pytest.raises(DataError, match='more than 3000 pixels.*MAX_IMAGE_PIXELS'):
            inspect_image(path)


def test_a_png_said_to_be_larger_than_opencv_reads_is_named(tmp_path):
    content = bytearray(saved(Image.fromarray(photo()).convert('I;16'), 'PNG'))
    content[16:24] = struct.pack('>II', 50_000, 50_000)
    content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(DataError, match='OPENCV_IO_MAX_IMAGE_PIXELS'):
        inspect_image(tmp_path / 'a.png')


@pytest.fixture
def folder(tmp_path):
    """Images of all kinds, each of which a note is about."""
    rng = np.random.default_rng(0)
    for i, largest in enumerate([500, 2544]):
        values = rng.integers(0, largest, SHAPE).astype(np.uint16)
        values[0, 0] = largest
        cv2.imwrite(str(tmp_path / f'deep{i}.png'), values)
    image = Image.fromarray(photo())
    image.save(tmp_path / 'plain.jpg')
    image.save(tmp_path / 'turned.jpg', exif=turned(8))
    image.save(tmp_path / 'pages.tiff', **MULTI)
    image.save(tmp_path / 'moving.webp', **MULTI)
    image.save(tmp_path / 'moving.png', **MULTI)
    return tmp_path


def test_notes_count_what_a_user_should_know(folder):
    paths = sorted(folder.iterdir())
    infos, notes, bit_depth = inspect_images(paths * 2, 'images', DataOptions())
    assert list(infos) == paths
    assert bit_depth == 12
    assert notes == [
        '2 of 7 images hold 16 bits per value, at most 2544: read as 12 bits; choose '
        'another with --bit-depth.',
        '1 of 7 images are turned by their EXIF orientation, and read as they are '
        f'shown (first: {folder / "turned.jpg"}).',
        '3 of 7 images hold several pages or frames, of which the first is read '
        f'(first: {folder / "moving.png"}).',
    ]
    for name in ('pages.tiff', 'moving.webp', 'moving.png'):
        difference = mmcv.imread(folder / name).astype(int) - photo()[..., ::-1]
        assert abs(difference).mean() < 30  # the others are its negative


@pytest.mark.parametrize(
    'largest,bit_depth',
    [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (65535, 16)],
)
def test_the_smallest_depth_that_holds_all_is_taken(largest, bit_depth, tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.full(SHAPE, largest, np.uint16))
    info = inspect_image(path)
    assert (info.bits, info.largest) == (16, largest)
    assert inspect_images([path], 'images', DataOptions())[2] == bit_depth


def test_a_chosen_depth_says_what_it_cuts_off(folder):
    paths = sorted(folder.glob('deep*'))
    _, notes, bit_depth = inspect_images(paths, 'images', DataOptions(bit_depth=10))
    assert bit_depth == 10
    assert notes[0].endswith('In 1 of them, values above 1023 are cut off there.')


def test_images_of_8_bits_have_no_depth_and_unchecked_ones_the_chosen_one(folder):
    def depth(name, **options):
        return inspect_images([folder / name], 'images', DataOptions(**options))

    assert depth('plain.jpg') == (
        {folder / 'plain.jpg': (64, 48, (64, 48), 1, 8, None, 1)},
        [],
        None,
    )
    assert depth('plain.jpg', bit_depth=12)[2] is None
    assert depth('nowhere.png', check=False) == ({}, [], None)
    assert depth('nowhere.png', check=False, bit_depth=12) == ({}, [], 12)


@pytest.mark.parametrize(
    'size,fits', [((96, 1), True), ((193, 1), False), ((1, 300), False)]
)
def test_an_image_of_which_resizing_leaves_nothing_is_named(size, fits, tmp_path):
    path = tmp_path / 'strip.png'
    Image.new('RGB', size).save(path)
    assert len(inspect_images([path], 'images', DataOptions())[0]) == 1
    options = DataOptions(longest_side=96)
    if fits:
        assert len(inspect_images([path], 'images', options)[0]) == 1
        return
    said = f'{path} is {size[0]}×{size[1]} pixels; resized to at most 96 pixels'
    with pytest.raises(DataError, match=said):
        inspect_images([path], 'images', options)


def test_all_bits_are_read_and_scaled(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.dstack([values, values // 2, values // 4]))
    pixels = read_image(path, 12)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[..., 0] - values / 4095 * 255).max() <= 0.501
    assert (pixels.min(), pixels[..., 0].max(), pixels[..., 2].max()) == (0, 255, 64)
    assert len(np.unique(pixels[..., 0])) == 256
    assert (read_image(path, 10)[values > 1023][..., 0] == 255).all()
    assert len(np.unique(mmcv.imread(path))) == 16  # what OpenCV does by itself
    image = Image.fromarray(photo())
    image.save(tmp_path / 'a.jpg', exif=turned(6))
    assert np.array_equal(
        read_image(tmp_path / 'a.jpg', 12), mmcv.imread(tmp_path / 'a.jpg')
    )
    (tmp_path / 'no.png').write_bytes(b'')
    with pytest.raises(DataError, match='no.png cannot be read as an image'):
        read_image(tmp_path / 'no.png', 12)
