"""Tables that give images their classes."""

import pytest

from mmravlt.data import DataError, DataOptions
from mmravlt.data.classification import prepare_classes

from .classes import read, save

TRAIN = {0: 'cat', 1: 'bee', 2: 'cat', 3: 'wild ant'}
VAL = {4: 'bee', 5: 'cat', 6: 'wild ant'}


def prepare(folder, **options):
    return prepare_classes(folder, DataOptions(**options))


def write(folder, name, header, images, line, end='\n'):
    rows = [line.format(i=number, label=label) for number, label in images.items()]
    (folder / name).write_text(end.join([header, *rows]) + end, encoding='utf-8-sig')


# Where the images lie, the suffix and header of the table, and its lines
TABLES = {
    'from the root': ('{s}/{i}.png', 'csv', 'image,label', '{s}/{i}.png,{l}'),
    'from its folder': ('{s}/{i}.png', 'csv', 'filename,class', '{i}.png,{l}'),
    'without suffix': ('{s}_images/{i}.jpg', 'csv', 'id,category', '{i},{l}'),
    'tabs': ('images/{s}/{i}.png', 'tsv', 'label\tfile', '{l}\t{i}.png'),
    'semicolons': ('img/{s}/{i}.png', 'csv', 'Path;Label;n', '{s}/{i}.png;{l};1'),
    'of Windows': ('a/{s}/{i}.png', 'csv', 'path,label', 'a\\{s}\\{i}.png,{l}'),
    'quoted': ('{s}/my, {i}.png', 'csv', '"file_name","label"', '"my, {i}.png","{l}"'),
}


@pytest.mark.parametrize('kind', TABLES)
@pytest.mark.parametrize('names', [('train', 'val'), ('train', 'valid')])
def test_a_table_for_each_split_is_read(kind, names, tmp_path):
    place, suffix, header, line = TABLES[kind]
    for split, images in zip(names, (TRAIN, VAL), strict=True):
        for number in images:
            save(tmp_path / place.format(s=split, i=number), number)
        row = line.replace('{s}', split).replace('{l}', '{label}')
        write(tmp_path, f'{split}.{suffix}', header, images, row, '\r\n')
    prepared = prepare(tmp_path)
    assert prepared.layout == 'a table of classes'
    assert prepared.classes == ['bee', 'cat', 'wild ant']
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)
    assert prepared.notes == []
    prepared = prepare(tmp_path, splits=('val',))
    assert prepared.classes == ['bee', 'cat', 'wild ant']
    assert read(prepared, 'val') == VAL


def test_equal_names_in_two_folders_are_told_apart_by_the_split(tmp_path):
    for split, images in (('train', TRAIN), ('valid', VAL)):
        for i, number in enumerate(images):
            save(tmp_path / f'{split}_images/{i}.png', number)
        rows = dict(enumerate(images.values()))
        write(tmp_path, f'{split}.csv', 'image,label', rows, '{i}.png,{label}')
    prepared = prepare(tmp_path)
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)


def write_one(folder, header='image,label', line='{i}.png,{label}', images=TRAIN):
    for number in images:
        save(folder / f'images/{number}.png', number)
    write(folder, 'list.csv', header, images, line)


@pytest.mark.parametrize('val', ['val', 'Validation', 'test'])
def test_a_column_may_name_the_splits(val, tmp_path):
    images = TRAIN | VAL
    write_one(tmp_path, images=images)
    splits = {i: val if i in VAL else 'train' for i in images}
    rows = [f'{i}.png,{name},{splits[i]}' for i, name in images.items()]
    (tmp_path / 'list.csv').write_text('\n'.join(['image,label,split', *rows]))
    prepared = prepare(tmp_path)
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)
    assert ['test part' in note for note in prepared.notes] == [True] * (val == 'test')


def test_a_fraction_of_a_table_without_splits_is_for_validation(tmp_path):
    images = {i: 'bee' if i % 2 else 'cat' for i in range(8)}
    write_one(tmp_path, images=images)
    with pytest.raises(DataError, match='has no validation part'):
        prepare(tmp_path)
    prepared = prepare(tmp_path, val_fraction=0.25)
    train, val = read(prepared, 'train'), read(prepared, 'val')
    assert train | val == images
    assert sorted(val.values()) == ['bee', 'cat']


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    write_one(tmp_path, images={i: str(i) for i in (9, 10, 2)})
    (tmp_path / 'val.csv').write_text('image,label\n9.png,9\n')
    (tmp_path / 'list.csv').rename(tmp_path / 'train.csv')
    assert prepare(tmp_path).classes == ['2', '9', '10']


def test_classes_of_equal_numbers_have_an_order(tmp_path):
    write_one(tmp_path, images=dict(enumerate(('1', '01', '001', '2'))))
    (tmp_path / 'list.csv').rename(tmp_path / 'train.csv')
    (tmp_path / 'val.csv').write_text('image,label\n3.png,2\n')
    assert prepare(tmp_path).classes == ['001', '01', '1', '2']


@pytest.mark.parametrize(
    'header,line',
    [
        ('path,label', '{root}/{i}.png,{label}'),
        ('File Name,Class-Name', '{i}.png,{label}'),
        ('ImageID,ClassId', '{i},{label}'),
    ],
)
def test_tables_are_read_as_programs_write_them(header, line, tmp_path):
    for name, images in (('train', TRAIN), ('val', VAL)):
        for number in images:
            save(tmp_path / f'{number}.png', number)
        write(
            tmp_path,
            f'{name}.csv',
            header,
            images,
            line.replace('{root}', str(tmp_path)),
        )
    prepared = prepare(tmp_path)
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)


def test_test_images_need_no_class(tmp_path):
    for number in range(4):
        save(tmp_path / f'{number}.png', number)
    lines = ('image,label,split', '0.png,a,train', '1.png,b,train', '2.png,a,val')
    (tmp_path / 'list.csv').write_text('\n'.join((*lines, '3.png,,test')))
    prepared = prepare(tmp_path)
    assert (len(read(prepared, 'train')), len(read(prepared, 'val'))) == (2, 1)
    assert 'in no table and are left out (first: 3.png).' in prepared.notes[-1]


def test_images_in_no_table_and_repeated_lines_are_counted(tmp_path):
    images = TRAIN | VAL
    write_one(tmp_path, 'image,label,split', '{i}.png,{label},train', images)
    with (tmp_path / 'list.csv').open('a') as file:
        file.write('0.png,cat,train\n7.png,cat,val\n')
    save(tmp_path / 'images/7.png', 7)
    save(tmp_path / 'images/8.png', 8)
    prepared = prepare(tmp_path)
    assert read(prepared, 'train') == images
    assert read(prepared, 'val') == {7: 'cat'}
    notes = '\n'.join(prepared.notes)
    assert 'train: 1 lines of ' in notes and 'first: line 9, 0.png' in notes
    assert '1 images in ' in notes and 'in no table and are left out (first: ' in notes


FAULTS = {
    'another header': (
        'picture,kind\n0.png,cat\n',
        'list.csv has the columns picture, kind; of images it needs one out of image,',
    ),
    'no class': ('image,label\n0.png,cat\n1.png,\n', 'line 3 has no label; fill it in'),
    'a short line': ('image,label\n0.png\n', 'line 2 has no label'),
    'no image': ('image,label\n\n,cat\n', 'line 3 has no image'),
    'no lines': ('image,label\n', 'list.csv lists no images'),
    'an unknown split': (
        'image,label,split\n0.png,cat,train\n1.png,bee,fold1\n',
        "line 3 has the split 'fold1'; name one of train, training, val",
    ),
    'missing images': (
        'image,label\n0.png,cat\n5.png,bee\n6.png,bee\n',
        "lists 3 images; 2 of them, such as '5.png' on line 3, are not in .*/images;",
    ),
    'two classes': (
        'image,label\n0.png,cat\n1.png,bee\n0.png,bee\n',
        "gives '0.png' the class 'cat' on line 2 and 'bee' on line 4; leave one",
    ),
    'a class only in val': (
        'image,label,split\n0.png,cat,train\n1.png,bee,train\n2.png,cow,val\n',
        "has the class 'cow' on line 4, but training has no image of it",
    ),
    'one class': (
        'image,label,split\n0.png,cat,train\n1.png,cat,val\n',
        "has the one class 'cat'; a classifier tells at least two apart",
    ),
    'no training images': (
        'image,label,split\n0.png,cat,val\n1.png,bee,val\n',
        r'lists no images for training \(train, training\); found: val',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_is_wrong_with_a_table_is_named_by_its_line(fault, tmp_path):
    content, message = FAULTS[fault]
    write_one(tmp_path)
    (tmp_path / 'list.csv').write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        prepare(tmp_path, val_fraction=0.5)
    assert '\n' not in str(caught.value)


def test_two_tables_of_one_split_are_refused(tmp_path):
    write_one(tmp_path)
    for name in ('train.csv', 'train.tsv'):
        (tmp_path / name).write_text('image,label\n0.png,cat\n'.replace(',', '\t'))
    with pytest.raises(DataError, match='both train.csv and train.tsv, which name the'):
        prepare(tmp_path, val_fraction=0.5)


def test_two_tables_that_may_both_be_meant_are_refused(tmp_path):
    write_one(tmp_path)
    (tmp_path / 'other.csv').write_text('image,label\n0.png,cat\n')
    with pytest.raises(DataError, match='both list.csv and other.csv, which both list'):
        prepare(tmp_path, val_fraction=0.5)
