"""Pascal VOC's XML files become COCO's tables."""

import pytest

from mmravlt.data import DataError

from .test_layouts_common import names, rows, tables, write_image, write_text

pytestmark = pytest.mark.usefixtures('small_images_are_used')


def xml(filename, *objects, size=(40, 20)):
    """The text of an XML file; an object is a name, its corners and more."""
    inside = ''
    for name, corners, *more in objects:
        edges = zip(('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=True)
        box = ''.join(f'<{edge}>{value}</{edge}>' for edge, value in edges)
        inside += (
            f'<object><name>{name}</name>{"".join(more)}<bndbox>{box}</bndbox></object>'
        )
    width, height = size
    return (
        f'<annotation><filename>{filename}</filename><size><width>{width}</width>'
        f'<height>{height}</height><depth>3</depth></size>{inside}</annotation>'
    )


DIFFICULT = '<difficult>1</difficult>'
HEAD = '<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part>'


@pytest.fixture
def data(tmp_path):
    """VOC2012 of three images of 40×20 pixels; c is in no list."""
    root = tmp_path / 'data'
    home = root / 'VOCdevkit/VOC2012'
    for name in 'abc':
        write_image(home / f'JPEGImages/{name}.jpg')
    a = xml('a.jpg', ('dog', (1, 1, 40, 20)), ('cat', (3, 5, 3, 6), DIFFICULT))
    write_text(home / 'Annotations/a.xml', a)
    write_text(home / 'Annotations/b.xml', xml('b.jpg', ('dog', (2, 2, 9, 9), HEAD)))
    write_text(home / 'Annotations/c.xml', xml('c.jpg', ('eel', (1, 1, 9, 9))))
    write_text(home / 'ImageSets/Main/train.txt', 'a\n')
    write_text(home / 'ImageSets/Main/val.txt', 'b  1\n')
    write_text(home / 'ImageSets/Main/dog_train.txt', 'a  1\nc -1\n')
    return root


def home(root):
    return root / 'VOCdevkit/VOC2012'


def test_pixels_that_count_from_1_become_edges(data):
    prepared, found = tables(data)
    assert prepared.layout == 'Pascal VOC'
    assert prepared.classes == ['cat', 'dog']
    assert rows(found['train']) == {
        'a.jpg': [('dog', [0, 0, 40, 20]), ('cat', [2, 4, 1, 2])]
    }
    assert rows(found['val']) == {'b.jpg': [('dog', [1, 1, 8, 8])]}
    # what is hard to see is neither learnt nor scored
    assert [row['iscrowd'] for row in found['train']['annotations']] == [0, 1]
    assert found['train']['annotations'][0]['area'] == 800
    assert any('train: 2 boxes count pixels from 1' in x for x in prepared.notes)


@pytest.mark.parametrize(
    'boxes',
    [
        [(0, 5, 9, 10)],
        [(2.5, 5, 9, 10), (2, 5, 9.5, 10), (2, 5.5, 9, 10)],  # of five in all
    ],
)
def test_edges_from_0_stay_in_all_files(data, boxes):
    text = xml('b.jpg', *(('dog', box) for box in boxes))
    write_text(home(data) / 'Annotations/b.xml', text)
    prepared, found = tables(data)
    x0, y0, x1, y1 = boxes[0]
    assert rows(found['val'])['b.jpg'][0] == ('dog', [x0, y0, x1 - x0, y1 - y0])
    assert rows(found['train'])['a.jpg'][0] == ('dog', [1, 1, 39, 19])
    assert any('boxes are edges from 0' in x for x in prepared.notes)


def test_a_fraction_among_whole_numbers_changes_nothing(data):
    text = xml('b.jpg', ('dog', (2, 2, 8.5, 9)))
    write_text(home(data) / 'Annotations/b.xml', text)
    assert rows(tables(data)[1]['val']) == {'b.jpg': [('dog', [1, 1, 7.5, 8])]}


def test_classes_and_pixels_are_those_of_both_splits_when_testing(data):
    text = xml('a.jpg', ('ape', (0, 1, 4, 4)))
    write_text(home(data) / 'Annotations/a.xml', text)
    prepared, found = tables(data, splits=('val',))
    assert prepared.classes == ['ape', 'dog']
    assert rows(found['val']) == {'b.jpg': [('dog', [2, 2, 7, 7])]}


@pytest.mark.parametrize(
    'file,text,classes',
    [
        ('classes.txt', 'fox\ndog\ncat\n', ['fox', 'dog', 'cat']),
        ('labelmap.txt', '# label:color\nbackground:0,0,0::\ndog:1,1::\ncat:2,2::\n',
         ['dog', 'cat']),
    ],
)  # fmt: skip
def test_a_list_gives_the_order_of_classes(data, file, text, classes):
    write_text(home(data) / file, text)
    assert tables(data)[0].classes == classes
    write_text(home(data) / 'Annotations/b.xml', xml('b.jpg', ('owl', (1, 1, 9, 9))))
    with pytest.raises(DataError, match=f"b.jpg has .* the class 'owl'.*{file}"):
        tables(data)


def test_the_folder_of_one_year_may_be_given_and_have_no_lists(data):
    for path in (home(data) / 'ImageSets/Main').iterdir():
        path.unlink()
    write_image(home(data) / 'JPEGImages/d.jpg')
    prepared, found = tables(home(data), val_fraction=0.3)
    assert sorted(names(found['train']) + names(found['val'])) == [
        *('a.jpg', 'b.jpg', 'c.jpg')
    ]
    assert any('all: 1 images have no file of labels' in x for x in prepared.notes)


def test_files_beside_images_in_folders_of_splits_are_read(data, tmp_path):
    root = tmp_path / 'roboflow'
    for split, name in (('train', 'a'), ('valid', 'b')):
        write_image(root / split / f'{name}.jpg')
        path = home(data) / f'Annotations/{name}.xml'
        path.rename(root / split / f'{name}.xml')
    write_image(root / 'train/more.jpg')
    prepared, found = tables(root)
    assert names(found['train']) == ['a.jpg']
    assert rows(found['val']) == {'b.jpg': [('dog', [1, 1, 8, 8])]}
    assert any('train/more.jpg' in note for note in prepared.notes)


def test_a_list_without_names_is_refused(data):
    write_text(home(data) / 'ImageSets/Main/val.txt', '\n')
    with pytest.raises(DataError, match='VOC2012 lists no images for val'):
        tables(data)


def test_years_are_not_mixed(data):
    write_text(data / 'VOCdevkit/VOC2007/Annotations/a.xml', xml('a.jpg'))
    with pytest.raises(DataError, match='VOC2007 and VOCdevkit/VOC2012; give one'):
        tables(data)


def replace(old, new):
    def change(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


DAMAGES = {
    'cut off': (replace('</annotation>', ''), 'cannot be read as XML'),
    'another kind': (
        replace('annotation>', 'page>'),
        'is not VOC: it begins with <page',
    ),
    'size -1': (replace('>40<', '>-1<'), r'has a size of \(-1.0, 20.0\)'),
    'size of text': (replace('>40<', '>wide<'), "size/width is 'wide'; give a number"),
    'encoding': (
        replace('<annotation>', '<?xml version="1.0" encoding="gbk"?><annotation>'),
        'cannot be read as XML: multi-byte',
    ),
    'unknown encoding': (
        replace('<annotation>', '<?xml version="1.0" encoding="any"?><annotation>'),
        'cannot be read as XML: unknown encoding',
    ),
    'no box': (
        replace('bndbox>', 'polygon>'),
        r"object 1 \('dog'\), bndbox/xmin is None",
    ),
    'text': (replace('<xmax>9<', '<xmax>wide<'), "bndbox/xmax is 'wide'"),
    'NaN': (replace('<ymax>9<', '<ymax>nan<'), "bndbox/ymax is 'nan'"),
    'no name': (replace('<name>dog</name>', '<name> </name>'), 'object 1 has no name'),
    'difficult': (
        replace('<bndbox>', '<difficult>very</difficult><bndbox>'),
        r"object 1 \('dog'\), difficult is 'very'; give 0 or 1",
    ),
    'another image': (
        replace('<filename>b.jpg', '<filename>c.jpg'),
        "has the filename 'c.jpg', but the name of .*b.jpg, and both",
    ),
    'no image': (
        lambda path: (path.parents[1] / 'JPEGImages/b.jpg').unlink(),
        "has no image: neither b.jpg .* nor 'b.jpg'",
    ),
    'no file': (lambda path: path.unlink(), 'val.txt, line 1: there is no b.xml'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_refused_by_its_name(data, damage):
    apply, message = DAMAGES[damage]
    apply(home(data) / 'Annotations/b.xml')
    place = '' if damage == 'no file' else 'Annotations/b.xml.*'
    with pytest.raises(DataError, match=place + message):
        tables(data)


def test_the_filename_counts_where_no_image_has_the_name_of_the_file(data):
    images = home(data) / 'JPEGImages'
    (images / 'b.jpg').rename(images / 'other.jpg')
    path = home(data) / 'Annotations/b.xml'
    replace('b.jpg', r'C:\images\other.jpg')(path)
    _, found = tables(data)
    assert names(found['val']) == ['other.jpg']


def test_folders_may_be_called_annotations_and_images(data, tmp_path):
    root = tmp_path / 'plain'
    root.mkdir()
    (home(data) / 'Annotations').rename(root / 'annotations')
    (home(data) / 'JPEGImages').rename(root / 'images')
    prepared, found = tables(root, val_fraction=0.3)
    assert prepared.classes == ['cat', 'dog', 'eel']
    assert len(found['train']['images']) + len(found['val']['images']) == 3


@pytest.mark.parametrize(
    'old,new',
    [('size>', 'other>'), ('>40<', '>0<'), ('>20<', '> 0.0<'), ('>40<', '><')],
)
def test_a_size_that_is_missing_is_that_of_the_image(data, old, new):
    before = tables(data)[1]
    replace(old, new)(home(data) / 'Annotations/b.xml')
    prepared, found = tables(data)
    assert found == before
    assert any('val: 1 images have no size in their XML' in x for x in prepared.notes)


def test_folders_of_images_and_their_files_have_equal_names(data):
    for name in 'ab':
        for camera in ('left', 'right'):
            write_image(home(data) / f'JPEGImages/{camera}/{name}.jpg')
            box = (1, 1, 9, 9) if camera == 'left' else (3, 3, 5, 5)
            text = xml(f'{name}.jpg', (camera, box))
            write_text(home(data) / f'Annotations/{camera}/{name}.xml', text)
    for path in home(data).glob('*/*.*'):
        if path.suffix in ('.jpg', '.xml'):
            path.unlink()
    for split, name in (('train', 'a'), ('val', 'b')):
        lines = f'left/{name}.jpg\r\nright/{name}\r\n'
        write_text(home(data) / f'ImageSets/Main/{split}.txt', lines)
    for found in tables(data)[1].values():
        folders = [x['file_name'].split('/')[-2] for x in found['images']]
        labels = [found['categories'][x['category_id'] - 1]['name']
                  for x in found['annotations']]  # fmt: skip
        assert folders == labels == ['left', 'right']


def test_a_list_that_is_no_text_is_named(data):
    path = home(data) / 'ImageSets/Main/val.txt'
    path.write_bytes(b'\xe9t\xe9')
    with pytest.raises(DataError, match='val.txt cannot be read as UTF-8'):
        tables(data)


def test_a_turned_box_of_cvat_becomes_the_upright_one(data):
    turned = '<attribute><name>rotation</name><value>90.0</value></attribute>'
    box = ('dog', (11, 9, 20, 12), f'<attributes>{turned}</attributes>')
    write_text(home(data) / 'Annotations/b.xml', xml('b.jpg', box))
    prepared, found = tables(data)
    assert rows(found['val']) == {'b.jpg': [('dog', [13, 5, 4, 10])]}
    assert any('val: 1 boxes are turned' in note for note in prepared.notes)
