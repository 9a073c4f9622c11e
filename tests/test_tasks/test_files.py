"""Images that OpenCV would read otherwise than they are shown are refused."""

import pytest
from PIL import Image

from mmravlt.data.images import image_size
from mmravlt.tasks import DataError


@pytest.mark.parametrize('suffix', ['png', 'webp', 'tiff'])
def test_a_turned_image_that_opencv_may_not_turn_is_named(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f'turned.{suffix}'
    Image.new('RGB', (64, 48)).save(path, exif=exif)
    with pytest.raises(DataError, match='its EXIF orientation is 6'):
        image_size(path)
    Image.new('RGB', (64, 48)).save(path)
    assert image_size(path) == (64, 48)


def test_an_image_whose_pixels_opencv_does_not_read_is_named(tmp_path):
    Image.new('I', (64, 48)).save(tmp_path / 'deep.tiff')
    with pytest.raises(DataError, match='its pixels are of the mode I'):
        image_size(tmp_path / 'deep.tiff')
