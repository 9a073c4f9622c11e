"""Boxes of objects: other formats, other shapes, turned ones."""

import pytest

from .objects import BOXES, HEIGHT, INFINITY, NAN, WIDTH, check, make, refused, rows_of


@pytest.mark.parametrize(
    'box',
    [
        *([1, 2], [1, 2, 3, 4, 5], 'abcd', 7, {}, [[1], 2, 3, 4], [1, 2, 3, None]),
        *(['1', 2, 3, 4], [True, 2, 3, 4], [NAN, 2, 3, 4], [1, 2, INFINITY, 4]),
        [1, 2, 3, 10**400],
    ],
)
def test_a_box_that_is_not_four_numbers_is_refused(box, tables):
    rows_of(tables)[1]['bbox'] = box
    refused(tables, r"id 2 in '2.jpg' has bbox .*; give \[x, y, width, height\]")


def test_a_box_that_is_missing_or_empty_is_taken_from_the_shape(tables):
    rows = rows_of(tables)
    del rows[0]['bbox']
    rows[1]['bbox'], rows[2]['bbox'], rows[3]['bbox'] = [], None, [3, 3, 0, 0]
    assert '4 boxes are missing or empty' in check(tables)
    assert [tuple(row['bbox']) for row in rows] == BOXES
    del rows[0]['bbox'], rows[0]['segmentation']
    refused(tables, "id 1 in '1.jpg' has no bbox", masks=False)


def test_a_box_that_reaches_out_is_cut(tables):
    tables = make([*BOXES, (90, 50, 30, 20), (-0.5, 70, 20, 10.5)])
    assert '1 boxes reach out of their image and are cut' in check(tables)
    assert rows_of(tables)[6]['bbox'] == [90, 50, 10, 20]
    assert rows_of(tables)[7]['bbox'] == [-0.5, 70, 20, 10.5]


def corners(box):
    x, y, w, h = box
    return [x, y, x + w, y + h]


def centre(box):
    x, y, w, h = box
    return [x + w / 2, y + h / 2, w, h]


def relative(box):
    x, y, w, h = box
    return [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


FORMATS = [
    (corners, r'has bbox .* seem to be \[x1, y1, x2, y2\]'),
    (centre, r'has bbox .* seem to be \[centre x, centre y, width, height\]'),
    (relative, 'has bbox .* these are relative'),
    (lambda box: relative(corners(box)), 'these are relative'),
    (lambda box: relative(centre(box)), 'these are relative'),
]


@pytest.mark.parametrize('shapes', [True, False])
@pytest.mark.parametrize('convert,message', FORMATS)
def test_boxes_in_another_format_are_refused(convert, message, shapes):
    tables = make([*BOXES, (70, 30, 25, 40), (60, 10, 40, 60)], shapes)
    for row in rows_of(tables):
        row['bbox'] = convert(row['bbox'])
    refused(tables, message, masks=shapes)


def test_boxes_that_only_look_like_corners_agree_with_their_shapes():
    boxes = [(2, 1, 97, 78), (1, 1, 102, 78), (0.5, 0.5, 99, 79)]
    check(make(boxes))
    refused(make(boxes, shapes=False), 'seem to be', masks=False)


def test_a_few_boxes_that_disagree_with_their_shapes_are_taken_from_these(tables):
    rows = rows_of(tables)
    for row in rows[:3]:
        row['bbox'] = [0, 0, 20, 20]
    rows[5]['bbox'] = [x + 1 for x in BOXES[5]]  # within two pixels
    assert '3 boxes disagree with the shape of their own' in check(tables)
    assert [tuple(row['bbox']) for row in rows[:5]] == BOXES[:5]
    assert tables.changed


def test_boxes_that_mostly_disagree_with_their_shapes_are_refused(tables):
    for row in rows_of(tables)[:4]:
        row['bbox'] = [0, 0, 20, 20]
    refused(
        tables,
        r"id 1 in '1.jpg' has bbox \[0, 0, 20, 20\], but its shape has "
        r'\[10, 20, 30, 40\]; 4 of 6 boxes disagree',
    )


@pytest.mark.parametrize('masks', [True, False])
@pytest.mark.parametrize(
    'angle,expected',
    [
        (0, (20, 30, 40, 20)),
        (180.0, (20, 30, 40, 20)),
        (90, (30, 20, 20, 40)),
        ('-90.0', (30, 20, 20, 40)),
        (30, (40 - 22.3205, 40 - 18.6603, 44.6410, 37.3205)),
    ],
)
def test_a_turned_box_without_a_shape_becomes_the_upright_one(angle, expected, masks):
    tables = make([*BOXES, (20, 30, 40, 20)], shapes=masks)
    rows_of(tables)[-1]['attributes'] = dict(occluded=False, rotation=angle)
    notes = check(tables, masks=masks)
    if masks:  # the shape is turned already
        expected = (20, 30, 40, 20)
    assert rows_of(tables)[-1]['bbox'] == pytest.approx(expected, abs=1e-3)
    turned = expected != (20, 30, 40, 20)
    assert ('1 boxes are turned' in notes) == tables.changed == turned


def test_a_rotation_that_is_no_angle_is_named(tables):
    rows_of(tables)[2]['attributes'] = dict(rotation='left')
    refused(tables, "the annotation with id 3 in '3.jpg' has rotation 'left'")


def test_the_note_on_a_turned_box_that_is_cut_tells_the_upright_one():
    tables = make([*BOXES, (50, 30, 48, 20)], shapes=False)
    rows_of(tables)[-1]['attributes'] = dict(rotation=45)
    notes = check(tables, masks=False)
    assert rows_of(tables)[-1]['bbox'] == pytest.approx(
        [49.958, 15.958, 48.083, 48.083], abs=1e-2
    )
    assert 'cut at its border' not in notes
    rows_of(tables)[-1].update(bbox=[60, 30, 40, 30])
    notes = check(tables, masks=False)
    assert 'cut at its border (first' in notes
    assert "'7.jpg' has bbox [55.2" in notes
