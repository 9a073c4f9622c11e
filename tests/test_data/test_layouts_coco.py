"""COCO's files under the names that tools give them."""

import json
import shutil

import pytest

from demo.shapes import write_shapes
from mmravlt.data import DataError, DataOptions
from mmravlt.data.panoptic import prepare_panoptic

from .test_layouts_common import names, objects, tables, write_image, write_text

pytestmark = pytest.mark.usefixtures('small_images_are_used')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_shapes(folder, num_train=3, num_val=2, size=64)
    return folder


@pytest.fixture
def data(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / 'data')


def read(root, split):
    return json.loads((root / f'annotations/instances_{split}.json').read_text())


def move(data, names, images='{}'):
    """Give the annotation files of train and val other names."""
    for split, name in zip(('train', 'val'), names, strict=True):
        target = data / name
        target.parent.mkdir(exist_ok=True)
        if images != '{}':
            shutil.move(data / split, data / images.format(split))
        (data / f'annotations/instances_{split}.json').rename(target)


def merge(root, rename):
    """One file about the images of both splits; ids and names are given anew."""
    whole = dict(images=[], annotations=[])
    for split in ('train', 'val'):
        content = read(root, split)
        start = len(whole['images'])
        for image in content['images']:
            name = rename(split, image['file_name'])
            whole['images'].append(dict(image, id=image['id'] + start, file_name=name))
        for row in content['annotations']:
            i = len(whole['annotations']) + 1
            whole['annotations'].append(
                dict(row, id=i, image_id=row['image_id'] + start)
            )
    shutil.rmtree(root / 'annotations')
    return dict(whole, categories=content['categories'])


def flatten(root):
    """Move images of both splits into one folder, as train-… and val-…"""
    (root / 'images').mkdir()
    for split in ('train', 'val'):
        for path in sorted((root / split).iterdir()):
            path.rename(root / f'images/{split}-{path.name}')
        (root / split).rmdir()


@pytest.mark.parametrize(
    'files,images',
    [
        (('train.json', 'val.json'), '{}'),
        (('annotations/train.json', 'annotations/valid.json'), '{}'),
        (('training.json', 'validation.json'), '{}'),
        (('annotations/Train_coco.json', 'annotations/test.json'), '{}'),
        (('train/_annotations.coco.json', 'val/_annotations.coco.json'), '{}'),
        (('annotations/instances_Train.json', 'annotations/instances_Val.json'), '{}'),
    ],
)
def test_files_named_after_splits_are_read_as_they_are(shapes, data, files, images):
    move(data, files, images)
    prepared, found = tables(data)
    for split, file in zip(('train', 'val'), files, strict=True):
        assert prepared.splits[split]['ann_file'] == str(data / file)
        assert prepared.splits[split]['image_dir'] == str(data / split)
        assert found[split] == read(shapes, split)


def test_an_own_file_of_coco_goes_before_other_layouts(data):
    write_text(data / 'labels/train/00000.txt', '0 0.5 0.5 0.1 0.1')
    write_text(data / 'data.yaml', 'train: train\nval: val\nnames: [a, b, c, d]')
    assert tables(data)[0].layout == 'COCO'


def test_coco_without_a_file_for_val_is_split_or_uses_test(shapes, data):
    annotations = data / 'annotations'
    (annotations / 'instances_val.json').rename(annotations / 'instances_test.json')
    (data / 'val').rename(data / 'test')
    prepared, found = tables(data)
    assert found['val'] == read(shapes, 'val')
    assert any('the one named test' in note for note in prepared.notes)
    (annotations / 'instances_test.json').unlink()
    with pytest.raises(DataError, match='has no validation part'):
        tables(data)
    _, found = tables(data, val_fraction=0.3)
    assert [len(found[x]['images']) for x in ('train', 'val')] == [2, 1]


def as_roboflow(data, used=None):
    """Ids from 0, of which the first is of the group; ``used`` has an object of it."""
    for split, folder in (('train', 'train'), ('val', 'valid')):
        content = read(data, split)
        for row in content['categories']:
            row['supercategory'] = 'shapes'
        group = dict(id=0, name='shapes', supercategory='none')
        content['categories'].insert(0, group)
        if split == used:
            content['annotations'][0]['category_id'] = 0
        (data / split).rename(data / folder)
        write_text(data / folder / '_annotations.coco.json', json.dumps(content))
    shutil.rmtree(data / 'annotations')


def test_the_group_that_roboflow_lists_as_category_is_left_out(shapes, data):
    as_roboflow(data)
    prepared, found = tables(data)
    assert prepared.classes == ['circle', 'rectangle', 'triangle', 'star']
    assert prepared.splits['val']['image_dir'] == str(data / 'valid')
    assert objects(found['train']) == objects(read(shapes, 'train'))
    assert any(
        "Roboflow's group" in x and "'shapes', id 0" in x for x in prepared.notes
    )


@pytest.mark.parametrize('splits', [('train', 'val'), ('val',)])
def test_a_group_with_objects_in_any_split_stays(data, splits):
    as_roboflow(data, used='train')
    assert tables(data, splits=splits)[0].classes[0] == 'shapes'


@pytest.mark.parametrize(
    'file', ['annotations/instances_default.json', 'result.json', 'data.json']
)
def test_one_file_without_splits_is_split_by_chance(data, file):
    flatten(data)
    whole = merge(data, '{}-{}'.format)
    write_text(data / file, json.dumps(whole))
    prepared, found = tables(data, val_fraction=0.4)
    assert [len(found[x]['images']) for x in ('train', 'val')] == [3, 2]
    assert objects(whole) == {**objects(found['train']), **objects(found['val'])}


@pytest.mark.parametrize(
    'rename',
    [
        'images/{}-{}'.format,
        '../../upload/1/{}-{}'.format,
        r'C:\upload\{}-{}'.format,
        '/label-studio/data/images/{}-{}'.format,
    ],
)
def test_names_from_another_place_are_found_by_their_ends(data, rename):
    flatten(data)
    write_text(data / 'result.json', json.dumps(merge(data, rename)))
    prepared, found = tables(data, val_fraction=0.4)
    for split, content in found.items():
        folder = prepared.splits[split]['image_dir']
        for image in content['images']:
            assert (data / folder / image['file_name']).is_file()
    noted = any('all: 5 images were found by the ends' in x for x in prepared.notes)
    assert noted == (rename('train', 'x') != 'images/train-x')


def test_a_name_that_may_be_two_images_is_refused(data):
    flatten(data)
    write_text(data / 'result.json', json.dumps(merge(data, '/far/{}-{}'.format)))
    (data / 'more').mkdir()
    shutil.copy(data / 'images/val-00000.png', data / 'more')
    message = r"'/far/val-00000.png', which may be images/val-00000.png or more/val-0"
    with pytest.raises(DataError, match=message):
        tables(data, val_fraction=0.4)


def test_two_names_of_one_image_are_refused(data):
    flatten(data)
    whole = merge(data, '{}-{}'.format)
    whole['images'][0]['file_name'] = '/a/val-00000.png'
    whole['images'][1]['file_name'] = '/b/val-00000.png'
    write_text(data / 'result.json', json.dumps(whole))
    with pytest.raises(DataError, match=r"both '/a/val-.*' and '/b/.*there is only im"):
        tables(data, val_fraction=0.4)


def test_an_image_that_is_nowhere_is_named(data):
    flatten(data)
    write_text(data / 'result.json', json.dumps(merge(data, '{}-{}'.format)))
    (data / 'images/val-00001.png').unlink()
    with pytest.raises(DataError, match="5 images; 1 of them, such as 'val-00001.png'"):
        tables(data, val_fraction=0.4)


def test_one_file_is_split_by_the_folders_of_its_images(shapes, data):
    whole = merge(data, '{}/{}'.format)
    write_text(data / 'all.json', json.dumps(whole))
    _, found = tables(data)
    assert objects(found['train']) == objects(read(shapes, 'train'))
    assert objects(found['val']) == objects(read(shapes, 'val'))


def test_one_file_is_split_by_a_key_of_its_images(data):
    flatten(data)
    whole = merge(data, '{}-{}'.format)
    for image in whole['images']:
        image['split'] = image['file_name'].split('-')[0]
    write_text(data / 'all.json', json.dumps(whole))
    _, found = tables(data)
    assert names(found['val']) == ['val-00000.png', 'val-00001.png']
    del whole['images'][4]['split']
    write_text(data / 'all.json', json.dumps(whole))
    with pytest.raises(DataError, match="'val-00001.png' has '' for the key 'split'"):
        tables(data)


def test_sizes_that_a_file_lacks_are_those_of_its_images(data):
    move(data, ('train.json', 'val.json'))
    content = json.loads((data / 'val.json').read_text())
    for image in content['images']:
        del image['width'], image['height']
    write_text(data / 'val.json', json.dumps(content))
    _, found = tables(data)
    assert [(x['width'], x['height']) for x in found['val']['images']] == [(64, 64)] * 2


def test_only_a_file_with_the_three_tables_is_cocos(data):
    move(data, ('train.json', 'val.json'))
    write_text(data / 'notes.json', '{"categories": [], "images": []}')
    write_text(data / 'panoptic.json', json.dumps(
        dict(images=[1], annotations=[dict(segments_info=[])], categories=[1])
    ))  # fmt: skip
    write_text(data / 'broken.json', '{"images": "annotations" "categories"')
    assert tables(data)[0].layout == 'COCO export'
    (data / 'train.json').unlink()
    (data / 'val.json').unlink()
    with pytest.raises(DataError, match='none of the layouts'):
        tables(data)


def test_several_files_are_refused_where_none_is_clearly_meant(data):
    whole = json.dumps(merge(data, '{}/{}'.format))
    write_text(data / 'one.json', whole)
    write_text(data / 'two.json', whole)
    with pytest.raises(DataError, match='several annotation files.*one.json, two.json'):
        tables(data)
    write_text(data / 'train_a.json', whole)
    write_text(data / 'train_b.json', whole)
    with pytest.raises(DataError, match='both train_a.json and train_b.json'):
        tables(data)


def test_a_file_beside_those_of_splits_is_left_out_and_named(data):
    write_text(data / 'old.json', json.dumps(read(data, 'train')))
    move(data, ('train.json', 'val.json'))
    prepared, found = tables(data)
    assert len(found['train']['images']) == 3
    assert any('old.json' in note for note in prepared.notes)


def test_damaged_tables_are_refused_as_in_cocos_own_files(data):
    move(data, ('train.json', 'val.json'))
    content = json.loads((data / 'train.json').read_text())
    del content['annotations'][2]['category_id']
    write_text(data / 'train.json', json.dumps(content))
    with pytest.raises(DataError, match=r"annotations\[2\] has 'category_id': None"):
        tables(data)


def test_a_damaged_image_is_named(data):
    move(data, ('train.json', 'val.json'))
    write_image(data / 'train/00000.png', (64, 64))
    (data / 'train/00000.png').write_text('no image')
    with pytest.raises(DataError, match='00000.png cannot be read as an image'):
        tables(data)


@pytest.mark.parametrize('files', [None, ('train.json', 'val.json')])
def test_a_file_with_a_byte_order_mark_is_written_without(data, files):
    if files:
        move(data, files)
    before = tables(data)[1]
    for path in data.rglob('*.json'):
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
    assert tables(data)[1] == before  # which reads as training does


@pytest.mark.parametrize(
    'start', ['C:\\data\\{}\\', '/home/me/data/{}/', 'images/', '{}\\', 'https://x.y/']
)
def test_images_are_found_by_the_ends_of_their_names(shapes, data, start):
    for split in ('train', 'val'):
        content = read(data, split)
        for image in content['images']:
            image['file_name'] = start.format(split) + image['file_name']
        write_text(data / f'annotations/instances_{split}.json', json.dumps(content))
    prepared, found = tables(data)
    for split in ('train', 'val'):
        assert objects(found[split]) == objects(read(shapes, split))
        for image in found[split]['images']:
            path = f'{prepared.splits[split]["image_dir"]}/{image["file_name"]}'
            assert path.endswith(f'{split}/{image["file_name"].split("/")[-1]}')
    assert sum('ends of their names' in note for note in prepared.notes) == 2
    content['images'][0]['file_name'] = start.format('val') + 'gone.png'
    write_text(data / 'annotations/instances_val.json', json.dumps(content))
    with pytest.raises(DataError, match='such as .*gone.png., are not in'):
        tables(data)


@pytest.mark.parametrize('size', [0, None])
@pytest.mark.parametrize('check', [True, False])
def test_a_size_of_0_is_taken_from_the_image(shapes, data, size, check):
    content = read(data, 'val')
    for image in content['images']:
        image.update(width=size, height=size)
    write_text(data / 'annotations/instances_val.json', json.dumps(content))
    assert tables(data, check=check)[1]['val'] == read(shapes, 'val')


def test_large_hidden_files_do_not_stand_for_annotations(data):
    move(data, ('train/_annotations.coco.json', 'val/_annotations.coco.json'))
    before = tables(data)[1]
    for i in range(20):
        write_text(data / f'train/._{i}.json', ' ' * 100_000)
    assert tables(data)[1] == before


def test_a_panoptic_file_with_a_byte_order_mark_is_written_without(tmp_path):
    root = tmp_path / 'data'
    content = dict(
        images=[dict(id=1, file_name='a.png', width=40, height=20)],
        annotations=[dict(image_id=1, file_name='a.png', segments_info=[
            dict(id=1, category_id=1, iscrowd=0, area=800, bbox=[0, 0, 40, 20])
        ])],
        categories=[
            dict(id=i, name=name, isthing=2 - i) for i, name in ((1, 'ant'), (2, 'sky'))
        ],
    )  # fmt: skip
    for split in ('train', 'val'):
        path = root / f'annotations/panoptic_{split}.json'
        write_image(root / split / 'a.png')
        write_image(path.with_suffix('') / 'a.png')
        path.write_text(json.dumps(content), encoding='utf-8-sig')
    prepared = prepare_panoptic(root, DataOptions(check=False))
    for split in prepared.splits.values():
        with open(split['ann_file'], encoding='utf-8') as file:
            assert json.load(file) == content
