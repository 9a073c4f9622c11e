"""Splits, names and choices that all layouts of objects share."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mmravlt.data import DataError, DataOptions
from mmravlt.data.detection import prepare_objects
from mmravlt.data.layouts.common import polygon_area, split_of

pytestmark = pytest.mark.usefixtures('small_images_are_used')

SIZE = (40, 20)


def write_image(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_label(root, name, label='0 0.5 0.5 0.5 0.5'):
    """An image of YOLO, such as 'train/a', and its label."""
    write_image(root / f'images/{name}.png')
    write_text(root / f'labels/{name}.txt', label)


def tables(root, splits=('train', 'val'), **options):
    """Prepared data, and the tables of each split."""
    prepared = prepare_objects(root, DataOptions(splits=splits, **options))
    files = {split: Path(x['ann_file']) for split, x in prepared.splits.items()}
    return prepared, {split: json.loads(x.read_text()) for split, x in files.items()}


def objects(content):
    """By the last parts of images' names, the class and the box of their objects."""
    classes = {row['id']: row['name'] for row in content['categories']}
    found = {row['id']: [] for row in content['images']}
    for row in content['annotations']:
        found[row['image_id']].append((classes[row['category_id']], row['bbox']))
    return {Path(row['file_name']).name: found[row['id']] for row in content['images']}


def rows(content):
    """The same, to be compared within a tolerance."""
    return {
        name: [(label, pytest.approx(box, abs=1e-3)) for label, box in found]
        for name, found in objects(content).items()
    }


def names(content):
    return sorted(Path(row['file_name']).name for row in content['images'])


@pytest.mark.parametrize(
    'name,split',
    [
        ('train', 'train'),
        ('instances_Train.json', 'train'),
        ('train2017', 'train'),
        ('training', 'train'),
        ('valid', 'val'),
        ('validation', 'val'),
        ('my-val_v2.json', 'val'),
        ('test', 'test'),
        ('constraint', None),
        ('interval', None),
        ('train_val', None),
        ('result.json', None),
    ],
)
def test_a_name_is_of_the_split_whose_word_it_holds(name, split):
    assert split_of(name) == split


def test_the_area_of_a_polygon_does_not_depend_on_its_direction():
    corners = [0, 0, 4, 0, 4, 3]
    assert polygon_area(corners) == 6
    assert polygon_area([4, 3, 4, 0, 0, 0]) == 6


@pytest.fixture
def unsplit(tmp_path):
    root = tmp_path / 'data'
    for i in range(10):
        write_label(root, f'{i}')
    write_text(root / 'classes.txt', 'cell\n')
    return root


def test_data_without_splits_is_split_by_chance_the_same_way_each_time(unsplit):
    prepared, found = tables(unsplit, val_fraction=0.3)
    assert [len(found[x]['images']) for x in ('train', 'val')] == [7, 3]
    assert sorted(names(found['train']) + names(found['val'])) == [
        f'{i}.png' for i in range(10)
    ]
    for content in found.values():
        images = {row['id'] for row in content['images']}
        assert {row['image_id'] for row in content['annotations']} == images
    (note,) = (x for x in prepared.notes if 'seed 0' in x)
    assert '7 are for training and 3 for validation' in note
    listed = Path(prepared.splits['val']['ann_file']).with_name('validation.txt')
    assert str(listed) in note
    assert [Path(x).name for x in listed.read_text().split()] == names(found['val'])

    _, testing = tables(unsplit, splits=('val',), val_fraction=0.3)
    assert names(testing['val']) == names(found['val'])
    seeds = {
        tuple(names(tables(unsplit, val_fraction=0.3, seed=seed)[1]['val']))
        for seed in range(5)
    }
    assert len(seeds) > 1


def test_without_a_fraction_data_without_validation_is_refused(unsplit):
    with pytest.raises(DataError, match='has no validation part.*--val-fraction 0.2'):
        tables(unsplit)


def test_training_data_alone_is_split_too(tmp_path):
    for i in range(4):
        write_label(tmp_path, f'train/{i}')
    write_text(tmp_path / 'classes.txt', 'cell\n')
    _, found = tables(tmp_path, val_fraction=0.25)
    assert [len(found[x]['images']) for x in ('train', 'val')] == [3, 1]


def test_a_fraction_that_is_not_needed_is_said_to_be_unused(tmp_path):
    write_label(tmp_path, 'train/a')
    write_label(tmp_path, 'val/b')
    write_text(tmp_path / 'classes.txt', 'cell\n')
    prepared, found = tables(tmp_path, val_fraction=0.5)
    assert names(found['val']) == ['b.png']
    assert any('--val-fraction is not used' in note for note in prepared.notes)


def test_test_stands_in_for_val_only_where_there_is_none(tmp_path):
    write_label(tmp_path, 'train/a')
    write_label(tmp_path, 'test/c')
    write_text(tmp_path / 'classes.txt', 'cell\n')
    prepared, found = tables(tmp_path)
    assert names(found['val']) == ['c.png']
    assert any('the one named test' in note for note in prepared.notes)
    write_label(tmp_path, 'valid/b')
    prepared, found = tables(tmp_path)
    assert names(found['val']) == ['b.png']
    assert not prepared.notes


def test_a_folder_of_no_layout_is_refused_with_all_layouts_and_what_is_there(tmp_path):
    write_image(tmp_path / 'images/a.png')
    write_text(tmp_path / 'labels/a.txt', 'a photo of a cell\n')
    write_text(tmp_path / 'notes.json', '{"categories": []}')
    with pytest.raises(DataError) as caught:
        tables(tmp_path)
    for text in ('COCO', 'Roboflow', 'YOLO', 'Pascal VOC', 'LabelMe'):
        assert text in str(caught.value)
    assert 'found there: images, labels, notes.json' in str(caught.value)


def test_a_folder_of_two_layouts_is_refused_with_a_file_of_each(tmp_path):
    write_label(tmp_path, 'a')
    write_text(tmp_path / 'classes.txt', 'cell\n')
    text = '<annotation><filename>a.png</filename></annotation>'
    write_text(tmp_path / 'Annotations/a.xml', text)
    with pytest.raises(DataError, match=r'YOLO \(labels/a.txt\) and Pascal VOC \(Ann'):
        tables(tmp_path)


def write_labelme(root):
    box = dict(label='ant', shape_type='rectangle', points=[[2, 3], [12, 13]])
    content = json.dumps(dict(shapes=[box], imagePath='a.png'))
    for split in ('train', 'val'):
        write_image(root / split / 'a.png')
        write_text(root / split / 'a.json', content)


def write_voc(root, folders=('Annotations', 'JPEGImages')):
    edges = '<xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>13</ymax>'
    text = f'<object><name>ant</name><bndbox>{edges}</bndbox></object>'
    size = '<size><width>40</width><height>20</height></size>'
    labels, images = folders
    for split in ('train', 'val'):
        write_image(root / images.format(split) / f'{split}.png')
        path = root / labels.format(split) / f'{split}.xml'
        write_text(path, f'<annotation>{size}{text}</annotation>')
        write_text(root / f'ImageSets/Main/{split}.txt', split)


def write_yolo(root):
    for split in ('train', 'val'):
        write_label(root, f'{split}/a', '0 0.175 0.4 0.25 0.5')
    write_text(root / 'classes.txt', 'ant')


WRITERS = {
    'LabelMe': write_labelme,
    'VOC': write_voc,
    'VOC beside images': lambda root: write_voc(root, ['{}', '{}']),
    'YOLO': write_yolo,
}


@pytest.mark.parametrize('layout', WRITERS)
def test_what_macos_puts_beside_each_file_is_left_out(layout, tmp_path):
    WRITERS[layout](tmp_path / 'data')
    before = tables(tmp_path / 'data')
    for path in [*(tmp_path / 'data').rglob('*.*')]:
        for name in (path.name, *'abc'):  # as many as are opened to find a layout
            other = path.with_name(f'._{name}').with_suffix(path.suffix)
            other.write_bytes(b'\0\5\x16\7\xff')
    prepared, found = tables(tmp_path / 'data')
    assert found == before[1]
    assert [*rows(found['train']).values()] == [[('ant', [2, 3, 10, 10])]]
    assert prepared.notes == before[0].notes


def test_names_that_are_not_utf_8_are_kept(tmp_path):
    root = tmp_path / 'data'
    write_text(root / 'classes.txt', 'ant')
    for name in ('a', 'b', os.fsdecode(b'\xe9')):
        write_label(root, name)
    for seed in range(3):
        _, found = tables(root, val_fraction=0.7, seed=seed)
        every = names(found['train']) + names(found['val'])
        assert sorted(every) == ['a.png', 'b.png', os.fsdecode(b'\xe9.png')]
