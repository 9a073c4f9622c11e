"""Values of objects: what is mended, left out with a count, or refused."""

import copy
from pathlib import Path

import pytest

from mmravlt.data import DataError, DataOptions, Findings, masks
from mmravlt.data.image_tables import ImageTables, check_shared, count_unlisted
from mmravlt.data.objects import ObjectTables, check_objects

WIDTH, HEIGHT = 100, 80
SIZE = ((WIDTH, HEIGHT), (WIDTH, HEIGHT))
NAN, INFINITY = float('nan'), float('inf')


def rectangle(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def make(boxes, shapes=True):
    """Tables with an image for each box, of two classes by turns."""
    rows = [
        dict(id=i, image_id=i, category_id=1 + i % 2, iscrowd=0, bbox=[*box])
        for i, box in enumerate(boxes, 1)
    ]
    for row in rows:
        row['area'] = row['bbox'][2] * row['bbox'][3]
        if shapes:
            row['segmentation'] = [rectangle(*row['bbox'])]
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT)
        for i in range(1, len(boxes) + 1)
    ]
    categories = [dict(id=1, name='ant'), dict(id=2, name='bee')]
    content = dict(images=images, annotations=rows, categories=categories)
    return ObjectTables(Path('some.json'), Path('images'), content)


BOXES = [(10 + 5 * i, 20, 30 + i, 40) for i in range(6)]


@pytest.fixture
def tables():
    return make(BOXES)


def check(tables, split='train', masks=True, sizes=None, **options):
    """The notes of a check, all in one text."""
    findings = Findings()
    sizes = sizes or [SIZE] * len(tables.content['images'])
    options = DataOptions(masks=masks, **options)
    check_objects(tables, split, options, findings, sizes)
    return ' '.join(findings.notes())


def refused(tables, message, **kwargs):
    with pytest.raises(DataError, match=message) as caught:
        check(tables, **kwargs)
    assert '\n' not in str(caught.value)


def rows_of(tables):
    return tables.content['annotations']


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


@pytest.mark.parametrize('ids', [range(6), range(-1, 5), 'abcdef', [1] * 6, [None] * 6])
def test_annotations_are_numbered_anew_where_an_id_cannot_be_scored(ids, tables):
    for row, number in zip(rows_of(tables), ids, strict=True):
        row['id'] = number
    assert 'all are numbered anew' in check(tables)
    assert [row['id'] for row in rows_of(tables)] == [1, 2, 3, 4, 5, 6]
    assert tables.changed


def test_missing_ids_and_floats_are_numbered_and_large_ids_stay(tables):
    rows = rows_of(tables)
    rows[0]['id'] = 2**40
    assert check(tables) == ''
    rows[1]['id'] = 2.0
    del rows[2]['id']
    assert 'train: 2 annotations have no number of their own' in check(tables)
    assert [row['id'] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    'key,value,message',
    [
        ('image_id', '2', "has image_id '2', which is not in 'images', where 2 is of"),
        ('category_id', '1', "category_id '1', .* 'categories', where 1 is of another"),
        ('image_id', 99, r"id 1 has image_id 99, which is not in 'images'\.$"),
    ],
)
def test_a_reference_to_nothing_is_refused(key, value, message, tables):
    rows_of(tables)[0][key] = value
    for check_values in (True, False):
        refused(tables, message, check=check_values)


@pytest.mark.parametrize('table', ['images', 'categories'])
def test_ids_of_several_types_are_refused(table, tables):
    tables.content[table][1]['id'] = 'two'
    refused(tables, f"has the ids 1 and 'two' in '{table}'; make all of them numbers")


@pytest.mark.parametrize(
    'name,message',
    [(' ', 'empty name .* id 2'), ('ant ', "category 'ant' twice.*1 and 2")],
)
def test_empty_and_equal_names_are_refused(name, message, tables):
    tables.content['categories'][1]['name'] = name
    refused(tables, message)


def test_classes_that_never_occur_are_listed_up_to_ten(tables):
    more = [dict(id=i, name=f'class {i}') for i in range(3, 20)]
    tables.content['categories'] += more
    notes = check(tables, 'val')
    assert "val: 17 classes never occur (first: 'class 3', 'class 4'" in notes
    assert "'class 12')" in notes and 'class 13' not in notes
    for row in rows_of(tables)[::2]:
        row['iscrowd'] = 1
    assert "18 classes never occur (first: 'bee'" in check(tables, 'val')


def test_a_size_other_than_the_files_is_refused(tables):
    sizes = [SIZE] * 5 + [((50, 40), (50, 40))]
    refused(tables, "'6.jpg' is 100×80 .* its file is 50×40; scale", sizes=sizes)


def test_a_size_of_an_image_before_exif_turns_it_is_refused(tables):
    sizes = [SIZE] * 5 + [((HEIGHT, WIDTH), (WIDTH, HEIGHT))]
    refused(tables, "'6.jpg' is 100×80 .* is 80×100 when it is turned", sizes=sizes)
    sizes = [SIZE] * 5 + [((HEIGHT, WIDTH), (HEIGHT, WIDTH))]
    refused(tables, 'width and height have changed places', sizes=sizes)


def test_a_size_as_exif_turns_the_image_is_fine(tables):
    assert check(tables, sizes=[((WIDTH, HEIGHT), (HEIGHT, WIDTH))] * 6) == ''


@pytest.mark.parametrize(
    'said', [{}, dict(width=WIDTH), dict(width=100.0, height=80.0)]
)
@pytest.mark.parametrize('check_values', [True, False])
def test_a_size_that_is_missing_or_no_integer_is_the_files(said, check_values, tables):
    image = tables.content['images'][0]
    del image['width'], image['height']
    image.update(said)
    notes = check(tables, check=check_values)
    assert '1 images have no whole numbers for width and height' in notes
    assert (image['width'], image['height']) == (WIDTH, HEIGHT)
    assert type(image['width']) is type(image['height']) is int
    assert tables.changed


def test_a_size_that_is_text_is_refused(tables):
    tables.content['images'][3]['width'] = '100'
    refused(tables, "'4.jpg' has width '100'; give pixels")


def test_images_that_training_leaves_out_for_their_size_are_counted(tables):
    tables.content['images'][0].update(width=31)
    rows_of(tables)[0].update(
        bbox=[0, 20, 30, 40], segmentation=[rectangle(0, 20, 30, 40)]
    )
    sizes = [((31, HEIGHT), (31, HEIGHT))] + [SIZE] * 5
    notes = check(tables, sizes=sizes)
    assert '1 images are below 32 pixels on a side' in notes
    assert "(first: '1.jpg': 31×80)" in notes
    assert check(tables, 'val', sizes=sizes) == ''


def test_images_that_are_all_too_small_are_refused():
    tables = make([(1, 1, 20, 20)] * 3)
    for image in tables.content['images']:
        image.update(width=31, height=31)
    sizes = [((31, 31), (31, 31))] * 3
    refused(tables, 'no image that can be learnt from.* 3 images are', sizes=sizes)
    check(tables, 'val', sizes=sizes)


def test_objects_in_small_images_alone_are_nothing_to_learn(tables):
    tables.content['annotations'] = rows_of(tables)[:1]
    tables.content['images'][0].update(width=31)
    rows_of(tables)[0].update(
        bbox=[0, 20, 30, 40], segmentation=[rectangle(0, 20, 30, 40)]
    )
    sizes = [((31, HEIGHT), (31, HEIGHT))] + [SIZE] * 5
    refused(tables, 'no object that can be learnt.*1 images are below', sizes=sizes)


def test_a_file_that_is_listed_twice_is_refused(tables):
    tables.content['images'][4]['file_name'] = './2.jpg'
    refused(tables, "lists the image '2.jpg' twice, with the ids 2 and 5")


def listed(folder, *names):
    content = dict(images=[dict(file_name=name) for name in names])
    return ImageTables(folder / 'some.json', folder, content)


def test_files_for_training_and_validation_are_counted(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path)
    train = listed(tmp_path, 'a.jpg', 'b.jpg')
    val = listed(tmp_path / 'link', './b.jpg', 'c.jpg')
    findings = Findings()
    check_shared(dict(train=train, val=val), findings)
    (note,) = findings.notes()
    assert note.startswith('val: 1 images are for training, too') and 'b.jpg' in note
    check_shared(dict(val=val), findings)
    assert findings.notes() == [note]


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


def test_images_in_no_list_are_counted(tmp_path):
    for name in ('a.jpg', 'b.JPG', 'c.png', '.d.jpg', 'notes.txt', 'sub/e.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, val = listed(tmp_path, 'a.jpg'), listed(tmp_path, './c.png')
    findings = Findings()
    count_unlisted(dict(train=train, val=val), findings)
    (note,) = findings.notes()
    assert note.startswith('train: 1 images are in no list') and 'b.JPG' in note


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
