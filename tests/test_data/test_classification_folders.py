"""Images of each class in a folder of its own, as people name these."""

import shutil

import pytest

from mmravlt.data import DataError, DataOptions
from mmravlt.data.classification import prepare_classes

from .classes import read, save

TRAIN = {0: 'ant', 1: 'ant', 2: 'bee', 3: 'wild cat'}
VAL = {4: 'ant', 5: 'bee', 6: 'wild cat'}


def prepare(folder, **options):
    return prepare_classes(folder, DataOptions(**options))


def write(folder, images):
    for number, name in images.items():
        save(folder / name / f'my photo {number}.png', number)


@pytest.fixture
def data(tmp_path):
    write(tmp_path / 'train', TRAIN)
    write(tmp_path / 'val', VAL)
    return tmp_path


@pytest.mark.parametrize(
    'train,val', [('train', 'val'), ('Training', 'valid'), ('train', 'validation')]
)
def test_usual_names_of_splits_are_known(train, val, tmp_path):
    write(tmp_path / train, TRAIN)
    write(tmp_path / val, VAL)
    write(tmp_path / 'test', {7: 'ant'})
    prepared = prepare(tmp_path)
    assert prepared.layout == 'class folders'
    assert prepared.classes == ['ant', 'bee', 'wild cat']
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)
    assert prepared.notes == []
    assert read(prepare(tmp_path, splits=('val',)), 'val') == VAL


def test_test_images_are_for_validation_where_there_are_no_others(tmp_path):
    write(tmp_path / 'train', TRAIN)
    save(tmp_path / 'test/0.png', 8)  # of no known class
    with pytest.raises(DataError, match='has no validation part'):
        prepare(tmp_path)
    (tmp_path / 'test/0.png').unlink()
    write(tmp_path / 'test', VAL)
    prepared = prepare(tmp_path)
    assert read(prepared, 'val') == VAL
    (note,) = prepared.notes
    assert note.startswith('val: 3 images are of the test part, as there is none for')


@pytest.mark.parametrize('inside', ['', 'train'])
def test_a_fraction_of_each_class_is_for_validation(inside, tmp_path):
    images = {i: 'ant' if i < 6 else 'bee' for i in range(9)} | {9: 'cat'}
    write(tmp_path / inside, images)
    with pytest.raises(DataError, match='has no validation part; .*--val-fraction 0.2'):
        prepare(tmp_path)
    prepared = prepare(tmp_path, val_fraction=1 / 3, seed=2)
    train, val = read(prepared, 'train'), read(prepared, 'val')
    assert train | val == images
    assert sorted(val.values()) == ['ant', 'ant', 'bee']  # the cat is for training
    note = prepared.notes[0]
    assert 'of its 10 images, 7 are for training and 3 for validation' in note
    assert read(prepare(tmp_path, val_fraction=1 / 3, seed=2, splits=('val',)), 'val')
    others = prepare(tmp_path, val_fraction=1 / 3, seed=3)
    assert read(others, 'val').keys() != val.keys()


@pytest.mark.parametrize('folder', ['masks', 'train_images', 'train2017', 'Test'])
def test_folders_of_images_are_no_classes_by_technical_names(folder, tmp_path):
    save(tmp_path / 'ant/0.png', 0)
    save(tmp_path / folder / '0.png', 0)
    with pytest.raises(DataError, match='class folders: .*; a table of classes: .*ant'):
        prepare(tmp_path, val_fraction=0.5)


@pytest.mark.parametrize('name', ['train_station', '1', 'gt car'])
def test_classes_may_have_such_a_word_in_their_names(name, tmp_path):
    for number in range(4):
        save(tmp_path / ('ant', name)[number % 2] / f'{number}.png', number)
    assert set(prepare(tmp_path, val_fraction=0.5).classes) == {'ant', name}


def test_what_lies_beside_the_images_is_counted_or_left_out(data):
    save(data / 'train/ant/.ipynb_checkpoints/0-checkpoint.png', 8)
    save(data / 'train/.cache/0.png', 8)
    save(data / 'train/loose.png', 8)
    (data / 'val/ant/0.gif').touch()
    (data / 'val/ant/0.txt').touch()
    (data / 'notes.csv').write_text('image,label\n0.png,ant\n')
    prepared = prepare(data)
    assert prepared.classes == ['ant', 'bee', 'wild cat']
    assert (read(prepared, 'train'), read(prepared, 'val')) == (TRAIN, VAL)
    loose, unknown = sorted(prepared.notes)
    assert loose.startswith('train: 1 images lie in ') and 'loose.png' in loose
    assert unknown.startswith('val: 1 files in ') and 'ant/0.gif' in unknown


@pytest.mark.parametrize('name', ['__MACOSX', '@eaDir'])
def test_folders_of_systems_are_no_classes(name, data):
    for split in ('train', 'val'):
        (data / split / name).mkdir()
    assert prepare(data).classes == ['ant', 'bee', 'wild cat']


def test_the_same_file_in_both_splits_is_counted(data):
    (data / 'val/bee/linked.png').symlink_to(data / 'train/bee/my photo 2.png')
    (data / 'train/ant/again.png').hardlink_to(data / 'train/ant/my photo 0.png')
    notes = sorted(prepare(data).notes)
    assert notes[0].startswith('train: 1 images are the same files as images listed')
    assert notes[1].startswith('val: 1 images are the same files as images of train')
    assert notes[1].count('my photo 2.png') == 1 and 'linked.png' in notes[1]


@pytest.mark.parametrize('left', ['an empty folder', 'no folder'])
def test_a_class_without_images_in_val_is_counted_and_keeps_its_number(left, data):
    shutil.rmtree(data / 'val/ant')
    if left == 'an empty folder':
        (data / 'val/ant').mkdir()
    prepared = prepare(data)
    assert prepared.classes == ['ant', 'bee', 'wild cat']
    assert read(prepared, 'val') == {5: 'bee', 6: 'wild cat'}
    assert prepared.notes == [
        'val: 1 classes have no images, so no score (first: ant).'
    ]


def test_classes_of_one_image_each_leave_none_for_validation(tmp_path):
    write(tmp_path, {0: 'ant', 1: 'bee'})
    with pytest.raises(DataError, match='has no class with more than one image, so no'):
        prepare(tmp_path, val_fraction=0.5)


def test_a_line_break_in_a_name_is_refused(data):
    save(data / 'train/ant/a\nb.png', 8)
    with pytest.raises(DataError, match=r"a\\nb.png' has a line break in its name"):
        prepare(data)
