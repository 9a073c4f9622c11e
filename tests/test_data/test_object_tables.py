"""What tables of objects say of ids, classes, sizes and files."""

import pytest

from mmravlt.data import Findings
from mmravlt.data.image_tables import ImageTables, check_shared, count_unlisted

from .objects import HEIGHT, SIZE, WIDTH, check, make, rectangle, refused, rows_of


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


def test_images_in_no_list_are_counted(tmp_path):
    for name in ('a.jpg', 'b.JPG', 'c.png', '.d.jpg', 'notes.txt', 'sub/e.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, val = listed(tmp_path, 'a.jpg'), listed(tmp_path, './c.png')
    findings = Findings()
    count_unlisted(dict(train=train, val=val), findings)
    (note,) = findings.notes()
    assert note.startswith('train: 1 images are in no list') and 'b.JPG' in note
