"""Maps and tables of colours, as other programs save them."""

import numpy as np
import pytest
from PIL import Image

from mmravlt.data import DataError, DataOptions
from mmravlt.data.segmentation import prepare_maps

from .maps import (
    CLASSES,
    assert_whole,
    in_colour,
    labels_of,
    save,
    save_colours,
    save_indices,
    write_names,
    write_split,
)

ROWS = (('road', 128, 64, 128), ('tree', 0, 128, 0), ('sky', 70, 130, 180))
ROWS += (('void', 0, 0, 0),)


def write(folder, saver):
    for split, numbers in (('train', (0, 1, 2)), ('val', (3, 4))):
        pattern = f'images/{split}/{{}}.png', f'masks/{split}/{{}}.png'
        write_split(folder, *pattern, numbers=numbers, saver=saver)


def table(header, mark):
    return '\n'.join([header, *(mark.join(map(str, row)) for row in ROWS)])


FILES = {
    'semicolons': ('class_dict.csv', table('name;r;g;b', ';')),
    'tabs': ('class_dict.csv', table('name\tr\tg\tb', '\t')),
    'another header': ('class_dict.csv', table('Class Name,Red,Green,Blue', ',')),
    'capitals': ('Class_Dict.CSV', table('NAME,R,G,B', ',')),
    'Windows': ('class_dict.csv', '\ufeff' + table('name,r,g,b\r', ',')),
    'CVAT': (
        'LabelMap.txt',
        '\n'.join(f'{name}:{r}, {g},{b}::' for name, r, g, b in ROWS),
    ),
}


@pytest.mark.parametrize('kind', FILES)
def test_tables_of_colours_are_read_as_programs_write_them(kind, tmp_path):
    write(tmp_path, save_colours)
    name, text = FILES[kind]
    (tmp_path / name).write_text(text, encoding='utf-8')
    prepared = prepare_maps(tmp_path, DataOptions())
    assert prepared.classes == list(CLASSES)
    assert_whole(prepared)


def test_names_in_cvats_table_may_have_colons(tmp_path):
    write(tmp_path, save_colours)
    lines = [f'a:{name}:{r},{g},{b}::' for name, r, g, b in ROWS[:3]]
    (tmp_path / 'labelmap.txt').write_text('\n'.join([*lines, 'void:0,0,0::']))
    prepared = prepare_maps(tmp_path, DataOptions())
    assert prepared.classes == [f'a:{name}' for name in CLASSES]
    assert_whole(prepared)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_indices_may_be_saved_in_several_channels(mode, tmp_path):
    def saver(path, number):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels_of(number)).convert(mode).save(path)

    write(tmp_path, saver)
    write_names(tmp_path)
    assert_whole(prepare_maps(tmp_path, DataOptions()))
    save(tmp_path / 'masks/train/1.png', np.full((12, 16, 3), (0, 1, 2), np.uint8))
    with pytest.raises(DataError, match=r'1.png has the colour \(0, 1, 2\)'):
        prepare_maps(tmp_path, DataOptions())


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('coloured', [True, False])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_maps_that_exif_turns_are_refused(suffix, coloured, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation

    def saver(path, number):
        pixels = labels_of(number)
        pixels = in_colour(pixels) if coloured else pixels
        save(path.with_suffix(f'.{suffix}'), pixels, exif=exif)

    write(tmp_path, saver)
    if coloured:
        (tmp_path / 'class_dict.csv').write_text(table('name,r,g,b', ','))
    else:
        write_names(tmp_path)
    if orientation == 1:
        assert_whole(prepare_maps(tmp_path, DataOptions()))
    else:
        with pytest.raises(DataError, match=f'orientation is {orientation}; save it'):
            prepare_maps(tmp_path, DataOptions())


def test_lists_of_pascal_voc_may_name_files(tmp_path):
    patterns = 'JPEGImages/{}.jpg', 'SegmentationClass/{}.png'
    write_split(tmp_path, *patterns, numbers=range(5), saver=save_indices)
    write_names(tmp_path)
    lists = tmp_path / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0.jpg\r\n1.jpg\r\n2.jpg\r\n')
    (lists / 'val.txt').write_text('3.JPG\n4\n')
    assert_whole(prepare_maps(tmp_path, DataOptions()))
