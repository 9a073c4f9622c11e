"""Images and maps are found and paired in the layouts that tools write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmravlt.data import DataError, DataOptions
from mmravlt.data.layouts.cityscapes import CLASSES as CITYSCAPES
from mmravlt.data.layouts.cityscapes import IDS
from mmravlt.data.layouts.voc_maps import CLASSES as VOC
from mmravlt.data.segmentation import prepare_maps

from .maps import (
    CLASSES,
    COLOURS,
    assert_whole,
    in_colour,
    labels_of,
    read,
    save,
    save_colours,
    save_indices,
    write_data,
    write_names,
    write_split,
)


def prepare(folder, **options):
    return prepare_maps(folder, DataOptions(**options))


# Where images and maps lie in train and in val
FOLDERS = {
    'images and annotations': 'images/{s}/{{}}.jpg annotations/{s}/{{}}.png train val',
    'other names': 'imgs/{s}/{{}}.png masks/{s}/{{}}.png training validation',
    'as in VOC': 'JPEGImages/{s}/{{}}.jpg SegmentationClass/{s}/{{}}.png train valid',
    'case': 'Images/{s}/{{}}.JPG Labels/{s}/{{}}.PNG Train Val',
    'splits outside': '{s}/images/{{}}.jpg {s}/masks/{{}}.png train valid',
    'cities': 'images/{s}/a/{{}}.v2.jpg gt/{s}/a/{{}}.v2.png train val',
    'TIFF': 'images/{s}/{{}}.tif labels/{s}/{{}}.tif train val',
    'BMP': 'images/{s}/{{}}.bmp labels/{s}/{{}}.bmp train val',
    'folders of CamVid': '{s}/{{}}.png {s}_labels/{{}}_L.png train val',
    'folders of SegNet': '{s}/{{}}.png {s}annot/{{}}.png train val',
    'masks by suffix': 'img/{s}/{{}}.jpg mask/{s}/{{}}_mask.png train val',
    'one folder': '{s}/{{}}_sat.jpg {s}/{{}}_mask.png train valid',
    'one folder, plain': '{s}/{{}}.jpg {s}/{{}}_mask.png train val',
    'image and label': '{s}/{{}}_image.png {s}/{{}}_label.png train val',
    'COCO-Stuff': 'images/{s}/{{}}.jpg annotations/{s}/{{}}_labelTrainIds.png '
    'train2017 val2017',
    'test is all there is': 'images/{s}/{{}}.jpg masks/{s}/{{}}.png train test',
}


@pytest.mark.parametrize('kind', FOLDERS)
def test_usual_names_of_folders_and_files_are_known(kind, tmp_path):
    images, maps, *splits = FOLDERS[kind].split(' ')
    for split, numbers in zip(splits, ((0, 1, 2), (3, 4)), strict=True):
        patterns = images.format(s=split), maps.format(s=split)
        write_split(tmp_path, *patterns, numbers=numbers)
    write_names(tmp_path)
    prepared = prepare(tmp_path)
    assert prepared.layout == 'index maps'
    assert prepared.classes == list(CLASSES)
    assert_whole(prepared)
    said = ['test part, as there is none' in note for note in prepared.notes]
    assert said == [True] * (splits[1] == 'test')
    assert read(prepare(tmp_path, splits=('val',)), 'val').keys() == {3, 4}


@pytest.mark.parametrize(
    'images,maps',
    [('images/{}.jpg', 'masks/{}.png'), ('{}.jpg', '{}_mask.png')],
)
@pytest.mark.parametrize('inside', ['', 'train'])
def test_a_fraction_is_for_validation_where_there_is_no_part(
    images, maps, inside, tmp_path
):
    folder = tmp_path / inside
    write_split(folder, images, maps, numbers=range(6))
    write_names(tmp_path)
    with pytest.raises(DataError, match='has no validation part; .*--val-fraction 0.2'):
        prepare(tmp_path)
    prepared = prepare(tmp_path, val_fraction=0.3, seed=1)
    val = sorted(read(prepared, 'val'))
    assert len(val) == 2
    assert_whole(prepared, sorted(set(range(6)) - set(val)), val)
    (note,) = prepared.notes
    assert 'of its 6 images, 4 are for training and 2 for validation, ' in note
    assert '--val-fraction 0.3 and the seed 1; ' in note
    listed = note.split('; ')[1].removesuffix(' lists the latter.')
    chosen = [str(folder / images.format(number)) for number in val]
    assert Path(listed).read_text().split('\n')[:-1] == chosen
    again = prepare(tmp_path, val_fraction=0.3, seed=1, splits=('val',))
    assert sorted(read(again, 'val')) == val


def test_test_images_without_maps_are_left_alone(tmp_path):
    write_split(tmp_path, 'train/{}_sat.jpg', 'train/{}_mask.png')
    write_split(tmp_path, 'test/{}_sat.jpg', 'elsewhere/{}.png', numbers=(5,))
    write_names(tmp_path)
    with pytest.raises(DataError, match='has no validation part'):
        prepare(tmp_path)
    (val,) = read(prepare(tmp_path, val_fraction=0.3), 'val')
    assert val in (0, 1, 2)


def test_a_fraction_that_is_not_needed_is_mentioned(tmp_path):
    (note,) = prepare(write_data(tmp_path), val_fraction=0.3).notes
    assert note.startswith('--val-fraction is not used: ')


TABLES = {
    'labelmap.txt': '# label:color_rgb:parts:actions\nroad:128,64,128::\n'
    'tree:0,128,0::\nsky:70,130,180::\nunlabelled:0,0,0::\n',
    'class_dict.csv': 'name,r,g,b\nroad,128, 64,128\ntree,0,128,0\nVoid,0,0,0\n'
    'sky,70,130,180\n',
    'classes.txt': 'road 128 64 128\ntree 0 128 0\nsky 70 130 180\nignore 0 0 0\n',
}


def write_colours(folder, table='class_dict.csv', saver=save_colours):
    for split, numbers in (('train', (0, 1, 2)), ('val', (3, 4))):
        patterns = f'images/{split}/{{}}.jpg', f'masks/{split}/{{}}.png'
        write_split(folder, *patterns, numbers=numbers, saver=saver)
    (folder / table).write_text(TABLES[table])


@pytest.mark.parametrize('table', TABLES)
@pytest.mark.parametrize('check', [True, False])
def test_colours_become_indices_by_a_table(table, check, tmp_path):
    write_colours(tmp_path, table)
    prepared = prepare(tmp_path, check=check)
    assert prepared.layout == 'colour maps'
    assert prepared.classes == list(CLASSES)
    assert_whole(prepared)
    notes = '\n'.join(prepared.notes)
    assert 'train: 3 maps were converted to class indices in ' in notes
    assert f'names in {tmp_path / table} are taken for pixels to be ignored' in notes


def quantised(path, number):
    Image.fromarray(in_colour(labels_of(number))).quantize(4).save(path)


def with_alpha(path, number):
    Image.fromarray(in_colour(labels_of(number))).convert('RGBA').save(path)


@pytest.mark.parametrize('saver', [quantised, with_alpha])
def test_colours_count_however_they_are_stored(saver, tmp_path):
    def save_it(path, number):
        path.parent.mkdir(parents=True, exist_ok=True)
        saver(path, number)

    write_colours(tmp_path, saver=save_it)
    assert_whole(prepare(tmp_path))


@pytest.mark.parametrize(
    'saver,layout', [(save_indices, 'index maps'), (save_colours, 'colour maps')]
)
def test_names_and_colours_side_by_side_are_told_apart_by_a_map(
    saver, layout, tmp_path
):
    write_colours(tmp_path, saver=saver)
    write_names(tmp_path)
    prepared = prepare(tmp_path)
    assert prepared.layout == layout
    assert_whole(prepared)


def write_voc(folder, saver=save_indices, name='2007_00000{}', lists=('train', 'val')):
    patterns = f'JPEGImages/{name}.jpg', f'SegmentationClass/{name}.png'
    write_split(folder, *patterns, numbers=range(5), saver=saver)
    write_split(folder, 'JPEGImages/2008_00000{}.jpg', 'x/{}.png', numbers=(6,))
    parts = ((0, 1, 2), (3, 4)) if len(lists) == 2 else (range(5),)
    for split, numbers in zip(lists, parts, strict=True):
        path = folder / f'ImageSets/Segmentation/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(name.format(number) + '\n' for number in numbers))


def save_palette(path, number):
    image = Image.fromarray(labels_of(number))
    image.putpalette([7 * i % 256 for i in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_pascal_voc_is_read_by_its_lists(tmp_path):
    write_voc(tmp_path, save_palette)
    prepared = prepare(tmp_path)
    assert (prepared.layout, prepared.classes) == ('Pascal VOC', list(VOC))
    assert_whole(prepared)
    write_names(tmp_path)
    assert prepare(tmp_path).classes == list(CLASSES)


def test_what_cvat_exports_as_voc_has_colours(tmp_path):
    border = {**COLOURS, 255: (224, 224, 192)}

    def saver(path, number):
        save(path, in_colour(labels_of(number), border))

    write_voc(tmp_path, saver, 'frame 0{}', ['default'])
    with pytest.raises(DataError, match='does not name its classes; .*labelmap.txt'):
        prepare(tmp_path, val_fraction=0.2)
    (tmp_path / 'labelmap.txt').write_text(TABLES['labelmap.txt'])
    prepared = prepare(tmp_path, val_fraction=0.2)
    assert prepared.classes == list(CLASSES)
    (val,) = read(prepared, 'val')
    assert_whole(prepared, sorted({0, 1, 2, 3, 4} - {val}), [val])


def test_a_name_in_a_list_that_is_not_there_is_named(tmp_path):
    write_voc(tmp_path)
    (tmp_path / 'SegmentationClass/2007_000004.png').unlink()
    with pytest.raises(DataError, match="val.txt lists '2007_000004' on line 2; .*one"):
        prepare(tmp_path)


def write_cityscapes(folder, kind, values=lambda labels: labels):
    for split, numbers in (('train', (0, 1, 2)), ('val', (3, 4))):
        patterns = (
            f'leftImg8bit/{split}/bonn/bonn_{{}}_leftImg8bit.png',
            f'gtFine/{split}/bonn/bonn_{{}}_gtFine_{kind}.png',
        )
        write_split(
            folder,
            *patterns,
            numbers=numbers,
            saver=lambda path, number: save(path, values(labels_of(number))),
        )
        for number in numbers:
            path = folder / f'gtFine/{split}/bonn/bonn_{number}_gtFine_color.png'
            save_colours(path, number)


def test_cityscapes_is_read_by_its_names(tmp_path):
    write_cityscapes(tmp_path, 'labelTrainIds')
    prepared = prepare(tmp_path)
    assert (prepared.layout, prepared.classes) == ('Cityscapes', list(CITYSCAPES))
    assert_whole(prepared)
    assert len(prepared.notes) == 2  # the classes that do not occur, and no more
    write_names(tmp_path)
    prepared = prepare(tmp_path)
    assert (prepared.classes, prepared.notes) == (list(CLASSES), [])


def test_cityscapes_own_ids_become_indices(tmp_path):
    ids = np.zeros(256, np.uint8)  # 0 is of no class
    ids[: len(IDS)] = IDS
    write_cityscapes(tmp_path, 'labelIds', lambda labels: ids[labels])
    prepared = prepare(tmp_path)
    assert prepared.classes == list(CITYSCAPES)
    assert_whole(prepared)
    path = tmp_path / 'gtFine/val/bonn/bonn_3_gtFine_labelIds.png'
    save(path, np.full((12, 16), 40, np.uint8))
    with pytest.raises(
        DataError, match='holds the value 40 in 192 pixels, which is no'
    ):
        prepare(tmp_path)


def test_ade20k_is_made_sure_of_by_its_names(tmp_path):
    def write(folder, name):
        for split, numbers in (('training', (0, 1, 2)), ('validation', (3, 4))):
            patterns = (f'{kind}/{split}/{name}' for kind in ('images', 'annotations'))
            write_split(folder, *patterns, numbers=numbers)

    write(tmp_path / 'ade', 'ADE_{}.png')
    prepared = prepare(tmp_path / 'ade')
    assert (prepared.layout, prepared.classes) == ('ADE20K', [])
    assert prepared.splits['val']['zero_ignored']
    write(tmp_path / 'own', '{}.png')
    with pytest.raises(DataError, match='own/classes.txt is missing; write one class'):
        prepare(tmp_path / 'own')
    (tmp_path / 'own/objectInfo150.txt').touch()
    assert prepare(tmp_path / 'own').layout == 'ADE20K'


def test_a_folder_in_no_layout_is_told_all_of_them(tmp_path):
    save_indices(tmp_path / 'photos/0.png', 0)
    names = (
        'Pascal VOC: ',
        'Cityscapes: ',
        'ADE20K: ',
        'index maps: ',
        'colour maps: ',
    )
    with pytest.raises(DataError, match='.*; '.join(names) + '.*found there: photos'):
        prepare(tmp_path)


def test_hidden_folders_and_other_files_never_reach_training(tmp_path):
    write_data(tmp_path)
    save_indices(tmp_path / 'images/train/.ipynb_checkpoints/0-checkpoint.png', 0)
    (tmp_path / 'images/train/0.gif').touch()
    (tmp_path / 'images/train/1.JP2').touch()
    (tmp_path / 'annotations/val/3.npy').touch()
    prepared = prepare(tmp_path)
    assert_whole(prepared)
    train, val = prepared.notes
    assert train.startswith('train: 2 files in ') and 'first: 0.gif' in train
    assert val.startswith('val: 1 files in ') and 'first: 3.npy' in val


def test_files_used_twice_are_counted(tmp_path):
    write_data(tmp_path)
    (tmp_path / 'images/val/3.png').unlink()
    (tmp_path / 'images/val/3.png').symlink_to(tmp_path / 'images/train/1.png')
    (tmp_path / 'images/train/2.png').unlink()
    (tmp_path / 'images/train/2.png').hardlink_to(tmp_path / 'images/train/0.png')
    notes = prepare(tmp_path).notes
    assert sorted(note.split(' (')[0] for note in notes) == [
        'train: 1 images are the same files as images listed before',
        'val: 1 images are the same files as images of train',
    ]


def test_paths_in_the_list_need_no_folder_to_start_from(tmp_path):
    prepared = prepare(write_data(tmp_path))
    pairs = json.loads(Path(prepared.splits['val']['ann_file']).read_text())
    assert pairs == [
        [str(tmp_path / f'{kind}/val/{i}.png') for kind in ('images', 'annotations')]
        for i in (3, 4)
    ]
