"""What is wrong with a folder of maps of class indices is said in one sentence."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mmravlt.tasks import DataError, use_custom_data

from .test_segmentation import save_map, upernet, write_data


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path / 'data')
    return tmp_path / 'data'


def write(name, content):
    def damage(data):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(content)

    return damage


def fill_maps(split, value):
    def damage(data):
        for path in (data / 'annotations' / split).iterdir():
            save_map(path, np.full((36, 48), value))

    return damage


def set_pixel(value, dtype=np.uint8):
    def damage(data):
        labels = np.zeros((36, 48), dtype)
        labels[5, 7] = value
        Image.fromarray(labels).save(data / 'annotations/train/1.png')

    return damage


def move(old, new):
    return lambda data: (data / old).rename(data / new)


def remove(name):
    return lambda data: (data / name).unlink()


def twin(data):
    shutil.copy(data / 'images/train/0.jpg', data / 'images/train/0.jpeg')


def halve_image(data):
    Image.new('RGB', (24, 36)).save(data / 'images/train/2.jpg')


def cut_off(name):
    def damage(data):
        Image.effect_noise((36, 48), 50).save(data / name, format='PNG')
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[: len(content) // 2])

    return damage


def colour(data):
    Image.new('RGB', (48, 36)).save(data / 'annotations/val/2.png')


DAMAGES = {
    'no images': (
        move('images', 'pictures'),
        r'in none of the layouts .*index maps: images/.*found there: .*, pictures\.$',
    ),
    'no annotations': (
        move('annotations', 'drawings'),
        'in none of the layouts .*; found there: classes.txt, drawings, images',
    ),
    'another split': (
        move('images/val', 'images/test'),
        'images must hold a folder val; found there: test, train',
    ),
    'no classes.txt': (remove('classes.txt'), 'classes.txt is missing; write one'),
    'nothing in classes.txt': (write('classes.txt', b'\n'), 'names 0 classes; a segm'),
    'one class': (write('classes.txt', b'road'), 'names 1 classes; .*background'),
    'a class twice': (
        write('classes.txt', b'road\ntree\nroad'),
        "names 'road' twice, on lines 1 and 3",
    ),
    'a blank line': (
        write('classes.txt', b'road\n \ntree'),
        'line 2 is blank, but stands for the class with index 1',
    ),
    'classes.txt in UTF-16': (
        write('classes.txt', 'road'.encode('utf-16')),
        'classes.txt cannot be read as UTF-8 text',
    ),
    'no files': (
        lambda data: [p.unlink() for p in (data / 'images/val').iterdir()],
        r'images/val has no images \(.jpg, ',
    ),
    'no map': (
        remove('annotations/train/1.png'),
        r'1 of 3 images in .*train, such as 1.jpg, have no map in .*\(.* 1.png\)',
    ),
    'no image': (
        remove('images/train/1.jpg'),
        '1 of 3 maps in .*annotations/train, such as 1.png, have no image in',
    ),
    'two images for a map': (twin, 'train has both 0.jpeg and 0.jpg, which share the'),
    'a label outside the list': (
        set_pixel(3),
        'train/1.png holds the value 3, but the classes are 0 to 2 and 255 ignored',
    ),
    'a 16-bit label outside the list': (
        set_pixel(256, np.uint16),
        'train/1.png holds the value 256, but the classes are 0 to 2',
    ),
    'all ignored in training': (
        fill_maps('train', 255),
        'annotations/train hold no class at all besides ignored pixels',
    ),
    'all ignored in validation': (
        fill_maps('val', 255),
        'annotations/val hold no class at all besides ignored pixels',
    ),
    'masks of 0 and 255': (
        fill_maps('train', 0),
        'train hold only class 0 .* a mask of 0 and 255 has to be saved as 0 and 1',
    ),
    'a map in colour': (
        colour,
        r'val/2.png is an image in colour \(RGB\); save one .* add a class_dict.csv',
    ),
    'another size': (
        halve_image,
        'train/2.png is 48×36 pixels, but its image .*2.jpg is 24×36;',
    ),
    'an image that is none': (
        write('images/val/0.jpg', b'<html>'),
        'val/0.jpg cannot be read as an image .*; replace or remove it',
    ),
    'half an image': (
        lambda data: (
            (data / 'images/val/0.jpg').unlink(),
            cut_off('images/val/0.png')(data),
        ),
        'val/0.png cannot be read as an image',
    ),
    'half a map': (
        cut_off('annotations/val/0.png'),
        'annotations/val/0.png cannot be read as an image',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_folder_gets_one_sentence_that_names_the_place(damage, data):
    apply, message = DAMAGES[damage]
    apply(data)
    with pytest.raises(DataError, match=message) as caught:
        use_custom_data(upernet(), str(data))
    assert '\n' not in str(caught.value)
