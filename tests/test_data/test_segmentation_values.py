"""What maps hold is looked at: made right and said, or refused with its place."""

import numpy as np
import pytest
from PIL import Image

from mmravlt.data import DataError, DataOptions
from mmravlt.data.segmentation import prepare_maps

from .maps import (
    COLOURS,
    SIZE,
    assert_whole,
    in_colour,
    labels_of,
    save,
    save_colours,
    save_image,
    write_data,
    write_split,
)


def prepare(folder, **options):
    return prepare_maps(folder, DataOptions(**options))


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / 'data')


@pytest.fixture
def colours(tmp_path):
    for split, numbers in (('train', (0, 1, 2)), ('val', (3, 4))):
        patterns = f'data/images/{split}/{{}}.png', f'data/masks/{split}/{{}}.png'
        write_split(tmp_path, *patterns, numbers=numbers, saver=save_colours)
    write_table(tmp_path / 'data')
    return tmp_path / 'data'


def write_table(folder, **others):
    names = {0: 'road', 1: 'tree', 2: 'sky', 255: 'void'}
    rows = [(names[i], colour) for i, colour in COLOURS.items()] + [*others.items()]
    lines = [f'{name},{",".join(map(str, colour))}\n' for name, colour in rows]
    (folder / 'class_dict.csv').write_text('name,r,g,b\n' + ''.join(lines))


def test_maps_that_are_all_ignored_are_counted(data):
    for name in ('train/1', 'val/3'):
        save(data / f'annotations/{name}.png', np.full(SIZE[::-1], 255, np.uint8))
    train, val = prepare(data).notes
    assert train.startswith('train: 1 maps hold nothing but ignored pixels (first: ')
    assert val.startswith('val: 1 maps hold nothing but ignored pixels')
    assert 'annotations/val/3.png' in val


def test_classes_that_never_occur_are_counted_by_split(data):
    for number in (3, 4):
        labels = labels_of(number)
        labels[labels == 1] = 2
        save(data / f'annotations/val/{number}.png', labels)
    (data / 'classes.txt').write_text('road\ntree\nsky\nsea\n')
    assert prepare(data).notes == [
        'val: 2 of 4 classes never occur in the maps (first: tree).',
        'train: 1 of 4 classes never occur in the maps (first: sea).',
    ]
    assert prepare(data, check=False).notes == []


@pytest.mark.parametrize('dtype', [np.uint16, np.int32])
def test_whole_numbers_of_more_bits_are_read(dtype, data):
    for path in data.glob('annotations/*/*.png'):
        Image.fromarray(labels_of(int(path.stem)).astype(dtype)).save(
            path.with_suffix('.tif')
        )
        path.unlink()
    assert_whole(prepare(data))


def resave(name, change):
    """Change one map, or the other way of saving it."""

    def damage(data):
        path = data / f'annotations/{name}.png'
        change(path, labels_of(int(path.stem)))

    return damage


def as_float(path, labels):
    path.unlink()
    Image.fromarray(labels.astype(np.float32)).save(path.with_suffix('.tif'))


def as_jpeg(path, labels):
    path.unlink()
    Image.fromarray(labels).save(path.with_suffix('.jpg'))


def as_two_pages(path, labels):
    path.unlink()
    page = Image.fromarray(labels)
    page.save(path.with_suffix('.tif'), save_all=True, append_images=[page])


def twice(path, labels):
    Image.fromarray(labels).save(path.with_suffix('.tif'))


def negative(path, labels):
    path.unlink()
    labels = labels.astype(np.int32)
    labels[3, 3] = -1
    Image.fromarray(labels).save(path.with_suffix('.tiff'))


def turn(data):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (data / 'images/val/3.png').unlink()
    save_image(data / 'images/val/3.jpg', 3)
    Image.open(data / 'images/val/3.jpg').save(data / 'images/val/3.jpg', exif=exif)


def other_folder(data):
    save(data / 'masks/train/0.png', labels_of(0))


def other_split(data):
    (data / 'images/valid').mkdir()


DAMAGES = {
    'floats': (
        resave('val/3', as_float),
        r'val/3.tif is an image whose pixels are no whole numbers \(F\)',
    ),
    'a JPEG': (
        resave('train/1', as_jpeg),
        'train/1.jpg cannot be a map: a .jpg file does not keep the values of pixels',
    ),
    'two pages': (resave('val/4', as_two_pages), 'val/4.tif holds 2 images; a map has'),
    'two files': (
        resave('train/2', twice),
        'has both 2.png and 2.tif, maps of the same image; leave one',
    ),
    'a negative value': (
        resave('train/2', negative),
        'train/2.tiff holds the value -1, but the classes are 0 to 2',
    ),
    'a turned image': (
        turn,
        r'val/3.png is 16×12 pixels, but its image .*/3.jpg is 12×16 when it is turned '
        'as its EXIF orientation says; turn the map alike',
    ),
    'two folders of maps': (
        other_folder,
        'has both annotations and masks, which both hold images and may both be meant',
    ),
    'two folders of one split': (
        other_split,
        'images has both val and valid, which name the same part; leave one',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_maps_that_cannot_be_read_exactly_are_named(damage, data):
    apply, message = DAMAGES[damage]
    apply(data)
    with pytest.raises(DataError, match=message) as caught:
        prepare(data)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('check', [True, False])
def test_a_colour_outside_the_table_is_named_with_its_pixels(check, colours):
    labels = labels_of(4)
    picture = in_colour(labels)
    picture[2, 1:7] = (1, 2, 3)
    picture[3, 1] = (3, 2, 1)
    save(colours / 'masks/val/4.png', picture)
    with pytest.raises(
        DataError,
        match=r'masks/val/4.png has the colour \(1, 2, 3\) in 6 pixels; 1 more such, '
        'which class_dict.csv does not list',
    ):
        prepare(colours, check=check)
    write_table(colours, bird=(1, 2, 3), fish=(3, 2, 1))
    assert prepare(colours).classes == ['road', 'tree', 'sky', 'bird', 'fish']


def test_indices_beside_a_table_of_colours_are_refused_with_the_way_out(colours):
    save(colours / 'masks/val/4.png', labels_of(4))
    with pytest.raises(DataError, match='class indices, list the names alone in class'):
        prepare(colours)


def test_a_map_in_colour_has_the_size_of_its_image(colours):
    save(colours / 'masks/val/4.png', in_colour(labels_of(4)[:-2]))
    with pytest.raises(DataError, match='val/4.png is 16×10 pixels, but its im.*12'):
        prepare(colours)


def test_maps_in_colour_of_nothing_are_refused_in_validation(colours):
    for number in (3, 4):
        save(colours / f'masks/val/{number}.png', in_colour(np.full((12, 16), 255)))
    with pytest.raises(DataError, match='masks/val hold no class at all besides ignor'):
        prepare(colours)


BAD_TABLES = {
    'no column': ('class_dict.csv', 'name,r,g\na,1,2\n', 'the columns name, r, g; '),
    'no number': ('class_dict.csv', 'name,r,g,b\na,1,2,x\n', "line 2 has .*'x'"),
    'a large number': (
        'class_dict.csv',
        'name,r,g,b\na,0,0,0\nb,256,0,0\n',
        r'line 3 has the colour \(256, 0, 0\); give values of 0 to 255',
    ),
    'a colour twice': (
        'class_dict.csv',
        'name,r,g,b\na,1,2,3\nb,1,2,3\n',
        r'has the colour \(1, 2, 3\) twice, on lines 2 and 3',
    ),
    'a name twice': (
        'class_dict.csv',
        'name,r,g,b\na,1,2,3\na,1,2,4\n',
        "names 'a' twice, as the classes with the indices 0 and 1",
    ),
    'no name': ('class_dict.csv', 'name,r,g,b\n,1,2,3\n', 'line 2 names no class'),
    'one class': ('class_dict.csv', 'name,r,g,b\na,1,2,3\n', 'names 1 classes; a segm'),
    'no colour': ('labelmap.txt', '# label\na:1,2,3::\nb:::\n', "line 3 is 'b:::'"),
    'a name alone': ('classes.txt', 'a 1 2 3\nb\n', "line 2 is 'b', but the first has"),
}


@pytest.mark.parametrize('kind', BAD_TABLES)
def test_a_table_that_is_not_whole_is_refused_by_its_line(kind, colours):
    name, content, message = BAD_TABLES[kind]
    (colours / 'class_dict.csv').unlink()
    (colours / name).write_text(content)
    with pytest.raises(DataError, match=f'{name}.*{message}'):
        prepare(colours)
