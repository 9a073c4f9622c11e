"""YOLO's labels become COCO's tables."""

import pytest

from mmravlt.data import DataError

from .test_layouts_common import (
    names,
    rows,
    tables,
    write_image,
    write_label,
    write_text,
)

pytestmark = pytest.mark.usefixtures('small_images_are_used')


def describe(root, text):
    write_text(root / 'data.yaml', text)


@pytest.fixture
def data(tmp_path):
    """A box and a polygon in one image of 40×20 pixels, one image without labels."""
    root = tmp_path / 'data'
    write_label(root, 'train/a', '1 0.5 0.5 0.25 0.5\n0 0 0 1 0 1 0.5\n')
    write_image(root / 'images/train/empty.png')
    write_label(root, 'val/b', '0 0.125 0.25 0.25 0.5')
    describe(root, 'train: images/train\nval: images/val\nnames: [cell, "no"]\n')
    return root


def test_boxes_and_polygons_are_in_pixels(data):
    prepared, found = tables(data)
    assert prepared.layout == 'YOLO'
    assert prepared.classes == ['cell', 'no']
    assert rows(found['train']) == {
        'a.png': [('no', [15, 5, 10, 10]), ('cell', [0, 0, 40, 10])],
        'empty.png': [],
    }
    assert rows(found['val']) == {'b.png': [('cell', [0, 0, 10, 10])]}
    box, polygon = found['train']['annotations']
    assert 'segmentation' not in box
    assert box['area'] == pytest.approx(100)
    assert polygon['segmentation'] == [pytest.approx([0, 0, 40, 0, 40, 10])]
    assert polygon['area'] == pytest.approx(200)
    assert found['train']['images'][0]['width'] == 40
    assert found['train']['images'][0]['height'] == 20
    assert len(prepared.notes) == 2
    assert 'images have no objects' in prepared.notes[0]
    assert "classes never occur (first: 'no')" in prepared.notes[1]


@pytest.mark.parametrize(
    'text,noted',
    [
        ('path: .\ntrain: images/train\nval: images/val', False),
        ('train: [images/train]\nval: [images/val]', False),
        ('train: train.txt\nval: val.txt', False),
        ('train: ../images/train\nval: ../images/val', True),
        ('path: /gone/data\ntrain: images/train\nval: images/val', True),
        ('train: /gone/data/images/train\nval: /gone/data/images/val', True),
        (r'path: C:\gone' + '\ntrain: images/train\nval: images/val', True),
        ('train: gone.txt\nval: val.txt', True),
    ],
)
def test_images_are_found_by_folder_by_list_and_on_another_machine(data, text, noted):
    write_text(data / 'train.txt', './images/train/a.png\nimages/train/empty.png\n\n')
    write_text(data / 'gone.txt', '/gone/images/train/a.png\nimages/train/empty.png\n')
    write_text(data / 'val.txt', 'images/val/b.png\n')
    describe(data, f'{text}\nnames: {{0: cell, 1: other}}\nnc: "2"\n')
    prepared, found = tables(data)
    assert names(found['train']) == ['a.png', 'empty.png']
    assert names(found['val']) == ['b.png']
    assert len(found['train']['annotations']) == 2
    assert noted == any('found by their ends' in x for x in prepared.notes)


def test_what_is_below_the_folder_goes_before_what_was_copied(data, tmp_path):
    write_image(tmp_path / 'old/data/images/train/old.png')
    old = tmp_path / 'old/data/images'
    describe(data, f'train: {old}/train\nval: images/val\nnames: [cell, other]\n')
    _, found = tables(data)
    assert names(found['train']) == ['a.png', 'empty.png']


def test_testing_needs_no_training_images(data):
    describe(data, 'train: gone/elsewhere\nval: images/val\nnames: [cell, other]\n')
    _, found = tables(data, splits=('val',))
    assert names(found['val']) == ['b.png']
    with pytest.raises(DataError, match="train is in 'gone/elsewhere', but there is"):
        tables(data)


def test_folders_may_be_in_each_split_and_names_in_a_list(data):
    for split in ('train', 'val'):
        (data / split).mkdir()
        for kind in ('images', 'labels'):
            (data / kind / split).rename(data / split / kind)
    (data / 'data.yaml').unlink()
    write_text(data / 'classes.txt', 'cell\nother\n')
    _, found = tables(data)
    assert rows(found['val']) == {'b.png': [('cell', [0, 0, 10, 10])]}
    assert len(found['train']['annotations']) == 2


def test_labels_without_image_are_counted(data):
    write_text(data / 'labels/train/gone.txt', '')
    write_text(data / 'labels/train/classes.txt', 'cell\n')
    prepared, _ = tables(data)
    (note,) = (note for note in prepared.notes if 'files of labels' in note)
    assert note.startswith('train: 1 files of labels have no image')
    assert 'labels/train/gone.txt' in note


def test_rounding_outside_the_image_is_taken_back(data):
    write_text(data / 'labels/val/b.txt', '0 0.9 0.5 0.2001 1\n0 0 0 1.0005 0 1 1\n')
    _, found = tables(data)
    assert rows(found['val'])['b.png'] == [
        ('cell', [31.998, 0, 8.002, 20]),
        ('cell', [0, 0, 40, 20]),
    ]


@pytest.mark.parametrize(
    'line,message',
    [
        ('2 0.5 0.5 0.1 0.1', 'the class index 2 is none of 0 to 1'),
        ('-1 0.5 0.5 0.1 0.1', 'the class index -1 is none'),
        ('0.5 0.5 0.5 0.1 0.1', 'the class index 0.5 is none'),
        ('0 0.5 0.5 0.1', 'has 3 numbers after the class index'),
        ('0 0.5 0.5 0.1 0.1 0.9', 'has 5 numbers'),
        ('0 0 0 1 0 1 1 1', 'has 7 numbers'),
        ('0', 'has 0 numbers'),
        ('0 20 10 8 8', '20 is not between 0 and 1.*not pixels'),
        ('0 0.5 0.5 -0.1 0.1', '-0.1 is not between'),
        ('0 0.5 nan 0.1 0.1', 'nan is not between'),
        ('0 0.5 inf 0.1 0.1', 'inf is not between'),
        ('nan 0.5 0.5 0.1 0.1', 'the class index nan is none'),
        ('cell 0.5 0.5 0.1 0.1', "'cell 0.5 0.5 0.1 0.1' are not numbers"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_number(data, line, message):
    write_text(data / 'labels/train/a.txt', f'0 0.5 0.5 0.1 0.1\n\n{line}\n')
    with pytest.raises(DataError, match=rf'train/a.txt, line 3.*{message}'):
        tables(data)


PLACES = 'train: images/train\nval: images/val\n'


@pytest.mark.parametrize(
    'text,message',
    [
        (PLACES + 'names: [no, yes]', 'has False for the name of class 0'),
        (PLACES + 'names: {1: cell, 2: other}', 'numbers its names 1, 2; number them'),
        (PLACES + 'names: [cell, cell]', "name 'cell' of class 1 is there twice"),
        (PLACES + 'names: [cell, ""]', "name '' of class 1 is empty"),
        (PLACES + 'names: 2', 'has 2 for names; give a list'),
        (PLACES + 'names: [cell]\nnc: 2', 'says nc: 2, but has 1 names'),
        (PLACES + 'names: [cell]\nkpt_shape: [17, 3]', 'points of poses'),
        (PLACES + 'names: [cell\n', 'cannot be read as YAML'),
        ('train: images/train\nval: 7\nnames: [a, b]', "has 7 for 'val'"),
        ('train: images/train\nval: labels/val/b.txt\nnames: [a, b]', 'line 1: the im'),
    ],
)
def test_a_wrong_description_is_refused(data, text, message):
    describe(data, text)
    with pytest.raises(DataError, match=message) as caught:
        tables(data)
    assert '\n' not in str(caught.value)


def test_labels_elsewhere_are_refused_with_the_place_they_belong(data):
    (data / 'labels').rename(data / 'texts')
    with pytest.raises(DataError, match=r'none of the 2 images of train.*labels/train'):
        tables(data)


def test_two_images_of_one_label_are_refused(data):
    write_image(data / 'images/train/a.jpg')
    with pytest.raises(DataError, match=r'a.jpg and .*a.png share the labels'):
        tables(data)


def test_images_in_both_splits_are_counted(data):
    describe(data, 'train: images/train\nval: images/train\nnames: [cell, other]\n')
    prepared, _ = tables(data)
    assert any('val: 2 images are those of train' in x for x in prepared.notes)


def test_names_are_asked_for(data):
    (data / 'data.yaml').unlink()
    with pytest.raises(DataError, match='neither data.yaml nor classes.txt'):
        tables(data)


def test_a_split_without_images_is_refused(data):
    for path in (data / 'images/val').iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r'data.yaml: val has no images \(.jpg'):
        tables(data)


def test_images_that_are_links_have_labels_where_the_links_are(data, tmp_path):
    path = data / 'images/val/b.png'
    path.rename(tmp_path / 'elsewhere.png')
    path.symlink_to(tmp_path / 'elsewhere.png')
    assert rows(tables(data)[1]['val']) == {'b.png': [('cell', [0, 0, 10, 10])]}
