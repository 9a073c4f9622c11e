"""LabelMe's shapes become COCO's tables."""

import json

import pytest

from mmravlt.data import DataError

from .test_layouts_common import names, rows, tables, write_image, write_text

pytestmark = pytest.mark.usefixtures('small_images_are_used')


def shape(label, points, kind='polygon', **more):
    return dict(label=label, points=points, shape_type=kind, group_id=None, **more)


def write(root, name, *shapes, image=True, **more):
    """A JSON file of LabelMe and, beside it, an image of 40×20 pixels."""
    if image:
        write_image(root / f'{name}.png')
    content = dict(
        version='5.4.1',
        flags={},
        shapes=shapes,
        imagePath=f'{name.split("/")[-1]}.png',
        imageData=None,
        imageHeight=20,
        imageWidth=40,
    )
    write_text(root / f'{name}.json', json.dumps({**content, **more}))


TRIANGLE = [[0, 0], [10, 0], [10, 8]]


@pytest.fixture
def data(tmp_path):
    root = tmp_path / 'data'
    box = shape('bus', [[30, 15], [20.5, 5]], 'rectangle')
    write(root, 'train/a', shape('car', TRIANGLE), box)
    write(root, 'val/b', shape('bus', TRIANGLE))
    return root


def test_polygons_become_masks_and_rectangles_boxes(data):
    prepared, found = tables(data)
    assert prepared.layout == 'LabelMe'
    assert prepared.classes == ['bus', 'car']
    assert rows(found['train']) == {
        'a.png': [('bus', [20.5, 5, 9.5, 10]), ('car', [0, 0, 10, 8])]
    }
    bus, car = found['train']['annotations']
    assert 'segmentation' not in bus
    assert bus['area'] == pytest.approx(95)
    assert car['segmentation'] == [[0, 0, 10, 0, 10, 8]]
    assert car['area'] == pytest.approx(40)
    assert prepared.notes == ["val: 1 classes never occur (first: 'car')."]


def test_a_rectangle_may_have_four_corners(data):
    corners = [[2, 3], [9, 3], [9, 7], [2, 7]]
    write(data, 'val/b', shape('car', corners, 'rectangle'))
    assert rows(tables(data)[1]['val']) == {'b.png': [('car', [2, 3, 7, 4])]}


def test_a_circle_becomes_a_polygon_of_its_extent(data):
    write(data, 'val/b', shape('car', [[20, 10], [23, 14]], 'circle'))
    _, found = tables(data)
    assert rows(found['val']) == {'b.png': [('car', [15, 5, 10, 10])]}
    assert found['val']['annotations'][0]['area'] == pytest.approx(78.5, abs=0.5)


def test_parts_of_one_group_are_one_object(data):
    other = [[20, 0], [30, 0], [30, 8]]
    parts = [shape('car', x) for x in (TRIANGLE, other, TRIANGLE)]
    parts[0]['group_id'] = parts[1]['group_id'] = 1
    write(data, 'val/b', *parts)
    _, found = tables(data)
    assert rows(found['val']) == {
        'b.png': [('car', [0, 0, 30, 8]), ('car', [0, 0, 10, 8])]
    }
    assert len(found['val']['annotations'][0]['segmentation']) == 2
    assert found['val']['annotations'][0]['area'] == pytest.approx(80)


def test_other_shapes_are_counted_and_left_out(data):
    line = shape('car', [[0, 0], [3, 3]], 'line')
    write(data, 'val/b', line, shape('bus', TRIANGLE), line)
    prepared, found = tables(data)
    assert len(found['val']['annotations']) == 1
    (note,) = (note for note in prepared.notes if 'never occur' not in note)
    assert note.startswith('val: 2 shapes are of the type line and left out')


def test_without_splits_data_is_split_by_chance(data, tmp_path):
    root = tmp_path / 'flat'
    for i in range(5):
        write(root, f'{i}', shape('car', TRIANGLE))
    write_image(root / 'unlabelled.png')
    prepared, found = tables(root, val_fraction=0.2)
    assert [len(found[x]['images']) for x in ('train', 'val')] == [4, 1]
    assert any('1 images have no file of labels' in note for note in prepared.notes)


def test_files_outside_the_splits_are_counted(data):
    write(data, 'c', shape('car', TRIANGLE))
    prepared, found = tables(data)
    assert names(found['train']) == ['a.png']
    assert any('in no folder of a split' in note for note in prepared.notes)


def test_labels_txt_gives_the_classes(data):
    write_text(data / 'labels.txt', '__ignore__\n_background_\ntruck\ncar\nbus\n')
    assert tables(data)[0].classes == ['truck', 'car', 'bus']
    write_text(data / 'labels.txt', 'car\n')
    with pytest.raises(DataError, match="class 'bus', which is not in .*labels.txt"):
        tables(data)


@pytest.mark.parametrize('path', [r'..\images\b.png', '/gone/b.png', 'renamed.png'])
def test_the_image_is_found_by_path_name_or_beside(data, path):
    folder = 'images' if path.startswith('.') else 'val'
    write(data, 'val/b', shape('bus', TRIANGLE), image=False, imagePath=path)
    (data / 'val/b.png').unlink()
    write_image(data / folder / 'b.png')
    prepared, found = tables(data)
    (image,) = found['val']['images']
    assert image['file_name'] == f'{folder}/b.png'


def test_an_image_beside_goes_before_the_one_it_was_copied_from(data, tmp_path):
    write_image(tmp_path / 'old/b.png')
    path = str(tmp_path / 'old/b.png')
    write(data, 'val/b', shape('bus', TRIANGLE), imagePath=path)
    prepared, found = tables(data)
    assert found['val']['images'][0]['file_name'] == 'val/b.png'
    assert prepared.splits['val']['image_dir'] == str(data)


def test_sizes_that_are_missing_are_those_of_the_image(data):
    write(data, 'val/b', shape('bus', TRIANGLE), imageHeight=None, imageWidth=None)
    (image,) = tables(data)[1]['val']['images']
    assert (image['width'], image['height']) == (40, 20)


@pytest.mark.parametrize(
    'shapes,more,message',
    [
        ([7], {}, r'shapes\[0\] has the label None'),
        ([shape('', TRIANGLE)], {}, "has the label ''; name its class"),
        ([shape('car', [])], {}, r'has the points \[\]; give x and y'),
        ([shape('car', [[1, 2, 3]])], {}, r'has the points \[\[1, 2, 3\]\]'),
        ([shape('car', [[1, float('nan')]])], {}, r'has the points \[\[1, nan\]\]'),
        ([shape('car', TRIANGLE, 'rectangle')], {}, 'a rectangle of 3 points'),
        ([shape('car', TRIANGLE, 'circle')], {}, 'a circle of 3 points'),
        ([], dict(shapes=None), "is not of LabelMe: it lacks 'shapes'"),
        ([], dict(imagePath='x.png', imageData='iVBO'), 'embedded as imageData'),
        ([], dict(imagePath='../train/a.png'), 'train/a.png twice'),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(data, shapes, more, message):
    write(data, 'val/b', shape('bus', TRIANGLE))
    write(data, 'val/c', *shapes, image=False, **more)
    if 'twice' in message:
        write(data, 'val/c', *shapes, image=False, imagePath='b.png')
        message = 'val/b.png twice'
    with pytest.raises(DataError, match=message):
        tables(data)


def test_a_file_that_is_no_json_is_refused(data):
    write_text(data / 'val/c.json', '{')
    with pytest.raises(DataError, match='val/c.json cannot be read as JSON'):
        tables(data)


@pytest.mark.parametrize('suffix', ['.jpg', '.JPG'])
def test_an_image_of_another_suffix_is_found_by_the_name_of_the_file(data, suffix):
    write(data, 'val/b', shape('bus', TRIANGLE), image=False, imagePath='gone.jpg')
    (data / 'val/b.png').rename(data / f'val/b{suffix}')
    assert names(tables(data)[1]['val']) == [f'b{suffix}']
