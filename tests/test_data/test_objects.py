"""Objects: what is mended, left out with a count, or refused."""

import copy

import pytest

from mmravlt.data import masks

from .objects import (
    BOXES,
    HEIGHT,
    INFINITY,
    NAN,
    WIDTH,
    check,
    make,
    rectangle,
    refused,
    rows_of,
)


@pytest.mark.parametrize('masks', [True, False, None])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_good_data_is_left_as_it_is_without_a_word(tables, split, masks):
    before = copy.deepcopy(tables.content)
    assert check(tables, split, masks) == ''
    assert tables.content == before
    assert not tables.changed


# What is left out, by what the first annotation is updated with.
LEFT_OUT = {
    'objects have a box whose width or height is 0': dict(bbox=[5, 5, 0, 9]),
    'objects have a box whose width or height is 0 or neg': dict(bbox=[5, 5, 9, -9]),
    'objects are below one pixel': dict(bbox=[5, 5, 0.9, 20]),
    'objects are below one pixel in width': dict(bbox=[99.5, 5, 20, 20]),
    'objects have a box wholly outside their im': dict(bbox=[99.9999999, 5, 1, 20]),
    'objects have a box wholly outside their image': dict(bbox=[100, 5, 9, 9]),
    'objects have a box wholly outside': dict(bbox=[-40, 5, 9, 9]),
}


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('reason', LEFT_OUT)
def test_an_object_that_training_drops_is_taken_out_and_counted(reason, split):
    tables = make(BOXES, shapes=False)
    rows_of(tables)[0].update(LEFT_OUT[reason])
    notes = check(tables, split, masks=False)
    assert f'{split}: 1 {reason}' in notes
    assert "the annotation with id 1 in '1.jpg' has bbox [" in notes
    assert '1 images have no objects' in notes
    assert [row['id'] for row in rows_of(tables)] == [2, 3, 4, 5, 6]
    assert tables.changed


BROKEN_SHAPES = {
    'a polygon with an odd number of values': [[*rectangle(*BOXES[0]), 5]],
    'a polygon with fewer than three points': [[10, 20, 40, 60]],
    'a polygon with values that are no finite numbers': [[NAN] * 8],
    'a polygon with no pixel inside the image': [[5, 5] * 4],
    'a polygon with points farther outside': [[0, 0, 1e9, 0, 1e9, 1e9]],
    'a run-length code without a pixel': dict(size=[HEIGHT, WIDTH], counts=[8000]),
    'no polygon and no run-length code': [],
}


@pytest.mark.parametrize('reason', BROKEN_SHAPES)
def test_an_object_without_a_mask_goes_only_where_masks_are_needed(reason, tables):
    rows_of(tables)[0]['segmentation'] = BROKEN_SHAPES[reason]
    other = copy.deepcopy(tables)
    assert f'train: 1 objects have {reason}' in check(tables, masks=True)
    assert [row['id'] for row in rows_of(tables)] == [2, 3, 4, 5, 6]
    notes = check(other, masks=False)
    told = f'train: 1 objects have {reason}' in notes and 'boxes are used' in notes
    assert told == (reason != 'no polygon and no run-length code')
    assert len(rows_of(other)) == 6
    assert not other.changed


def test_a_broken_part_goes_if_the_object_has_another_one(tables):
    row = rows_of(tables)[0]
    good = row['segmentation'][0]
    row['segmentation'] = [[1, 2, 3], good, [*good, 7]]
    notes = check(tables)
    assert 'train: 2 parts of polygons have an odd number of values' in notes
    assert row['segmentation'] == [good]
    assert len(rows_of(tables)) == 6 and tables.changed


def test_a_box_of_an_object_that_lost_a_part_stays(tables):
    row = rows_of(tables)[0]
    row['segmentation'] = [rectangle(10, 20, 5, 5), [*rectangle(20, 30, 20, 30), 1]]
    check(tables)
    assert row['bbox'] == [*BOXES[0]]


def test_numbers_without_a_list_around_them_become_a_polygon(tables):
    row = rows_of(tables)[0]
    row['segmentation'] = polygon = row['segmentation'][0]
    assert 'polygons are no list of parts' in check(tables)
    assert row['segmentation'] == [polygon]


def test_masks_that_most_objects_lack_are_refused(tables):
    for row in rows_of(tables)[1:5]:
        del row['segmentation']
    message = "id 2 in '2.jpg' has no segmentation .* 4 of 6 .* config without masks"
    refused(tables, message)
    assert check(tables, masks=False) == ''


def test_without_a_need_for_masks_their_faults_leave_nothing_out(tables):
    del rows_of(tables)[1]['segmentation']
    assert '1 objects have no polygon' in check(copy.deepcopy(tables), masks=True)
    assert check(tables, masks=False) == ''


@pytest.mark.parametrize('split', ['train', 'val'])
def test_nothing_left_is_refused_with_all_the_reasons(split, tables):
    rows = rows_of(tables)
    rows[0]['iscrowd'] = 1
    for row in rows[1:3]:
        row['ignore'] = 1
    for row in rows[3:]:
        row['segmentation'][0].append(1)
    refused(
        tables,
        'some.json has no object that can be learnt or scored.*'
        '3 objects have a polygon with an odd number.*id 4.*'
        '2 objects are to be ignored.*1 objects are crowds',
        split=split,
    )
    tables.content['annotations'] = []
    refused(tables, 'some.json has no object that can', split=split)


def test_crowds_and_what_is_to_be_ignored_stay_as_crowds(tables):
    rows = rows_of(tables)
    rows[0]['iscrowd'], rows[1]['ignore'] = True, 1
    rows[2].update(iscrowd=1, ignore=1)
    del rows[3]['iscrowd']
    notes = check(tables, 'val')
    assert 'val: 2 objects are crowds' in notes
    assert 'val: 1 objects are to be ignored' in notes
    assert [row['iscrowd'] for row in rows_of(tables)] == [1, 1, 1, 0, 0, 0]
    assert not any(row.get('ignore') for row in rows_of(tables))
    assert tables.changed


@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
@pytest.mark.parametrize('value', ['0', 2, [], NAN])
def test_a_mark_that_is_neither_0_nor_1_is_refused(key, value, tables):
    rows_of(tables)[2][key] = value
    refused(tables, f"id 3 in '3.jpg' has {key} .*; give 0 or 1")


@pytest.mark.parametrize(
    'area', [None, 0, -5, NAN, INFINITY, -INFINITY, '900', True, 1e12, 10**400]
)
def test_an_area_that_cannot_be_is_taken_from_the_shape_or_box(area, tables):
    rows = rows_of(tables)
    rows[0].update(area=area, segmentation=[[10, 20, 40, 20, 10, 60]])
    rows[1]['area'] = area
    del rows[1]['segmentation'], rows[2]['area']
    assert 'train: 3 areas are missing' in check(tables, masks=False)
    areas = [row['area'] for row in rows]
    assert areas == pytest.approx([600, 31 * 40, 32 * 40, *areas[3:]])
    assert tables.changed


def test_without_the_check_only_what_is_missing_is_filled_in(tables):
    rows = rows_of(tables)
    rows[0]['bbox'] = [500, 500, 0, NAN]
    rows[1]['segmentation'] = [[NAN]]
    del rows[2]['area'], rows[2]['iscrowd'], rows[3]['id']
    notes = check(tables, check=False, sizes=[None] * 6)
    assert notes.startswith('train: 1 annotations have no number') and len(rows) == 6
    assert rows[2]['area'] == 32 * 40 and rows[2]['iscrowd'] == 0
    assert rows[1]['segmentation'] == [[NAN]]


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(bbox=None), r'id 1 has bbox None; give \[x, y'),
        (dict(bbox=['1', 2, 3, 4], area=None), "id 1 has bbox .'1', 2, 3, 4.; give"),
        (dict(segmentation=[]), 'id 1 has no segmentation .* config without masks'),
    ],
)
def test_without_the_check_what_no_reader_can_do_without_is_refused(
    change, message, tables
):
    rows_of(tables)[0].update(change)
    refused(tables, message, check=False)


def test_without_the_check_crowds_alone_are_refused(tables):
    for row in rows_of(tables):
        row['iscrowd'] = 1
    refused(tables, 'no object but crowds', check=False)


def test_objects_are_measured_in_pieces_of_any_length(tables, monkeypatch):
    tables = make(BOXES * 3)
    rows_of(tables)[7]['segmentation'].append([1, 2, 3])
    rows_of(tables)[9]['bbox'] = [0, 0, 5, 5]
    rows_of(tables)[11]['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=[8000])
    other = copy.deepcopy(tables)
    notes = check(tables)
    monkeypatch.setattr(masks, 'CHUNK', 5)
    assert check(other) == notes
    assert other.content == tables.content
