"""`python -m mmravlt check-data DIR` says and draws what is in a folder."""

import json

import numpy as np
import pytest
from PIL import Image

from demo.shapes import write_shapes
from mmravlt.__main__ import main

from ..processes import run_python


def write_objects(folder):
    write_shapes(folder, num_train=3, num_val=2, size=64)


def write_maps(folder):
    for split, count in (('train', 3), ('val', 2)):
        for kind in ('images', 'annotations'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((40, 50, 3), 90, np.uint8)
            Image.fromarray(pixels).save(folder / f'images/{split}/{i}.jpg')
            labels = np.zeros((40, 50), np.uint8)
            labels[:10], labels[10:20] = 1, 255
            Image.fromarray(labels).save(folder / f'annotations/{split}/{i}.png')
    (folder / 'classes.txt').write_text('ground\nsky\n')


def write_classes(folder):
    for split, count in (('train', 3), ('val', 2)):
        for name in ('ant', 'bee'):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new('RGB', (40, 50)).save(folder / split / name / f'{i}.png')


def write_segments(folder):
    """One image in each split, with a thing above and stuff below."""
    (folder / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        maps = folder / f'annotations/panoptic_{split}'
        maps.mkdir()
        (folder / split).mkdir()
        Image.new('RGB', (50, 40)).save(folder / split / 'a.png')
        colours = np.zeros((40, 50, 3), np.uint8)
        colours[:20], colours[20:] = (1, 0, 0), (2, 0, 0)
        Image.fromarray(colours).save(maps / 'a.png')
        segments = [
            dict(
                id=i, category_id=i, bbox=[0, 20 * i - 20, 50, 20], area=1000, iscrowd=0
            )
            for i in (1, 2)
        ]
        content = dict(
            images=[dict(id=1, file_name='a.png', width=50, height=40)],
            annotations=[dict(image_id=1, file_name='a.png', segments_info=segments)],
            categories=[
                dict(id=1, name='thing', isthing=1),
                dict(id=2, name='stuff', isthing=0),
            ],
        )
        path = folder / f'annotations/panoptic_{split}.json'
        path.write_text(json.dumps(content))


def check(folder, monkeypatch, *words):
    command = ['mmravlt', 'check-data', str(folder), *words]
    monkeypatch.setattr('sys.argv', command)
    return main()


@pytest.mark.parametrize(
    'write,lines',
    [
        (write_objects, ['detection', 'layout: COCO', 'train: 3 images, ']),
        (write_maps, ['segmentation', 'layout: index maps', 'ground 66.67']),
        (
            write_classes,
            ['classification', 'layout: class folders', 'ant 3'],
        ),
        (write_segments, ['panoptic', 'train: 1 images, 2 segments', 'thing']),
    ],
)
def test_what_is_found_is_said_and_drawn(write, lines, tmp_path, monkeypatch, capsys):
    write(tmp_path / 'data')
    picture = tmp_path / 'found.png'
    assert check(tmp_path / 'data', monkeypatch, '--out', str(picture)) == 0
    said = ' '.join(capsys.readouterr().out.split())
    for line in lines:
        assert line in said
    with Image.open(picture) as image:
        assert len(image.convert('RGB').getcolors(1 << 20)) > 20


def test_what_is_odd_is_said(tmp_path, monkeypatch, capsys):
    write_objects(tmp_path / 'data')
    path = tmp_path / 'data/annotations/instances_train.json'
    content = json.loads(path.read_text())
    for row in content['annotations']:
        row['area'] = 0
    path.write_text(json.dumps(content))
    out = ('--out', str(tmp_path / 'x.png'))
    assert check(tmp_path / 'data', monkeypatch, *out) == 0
    assert 'areas are missing or impossible' in capsys.readouterr().out


@pytest.mark.parametrize(
    'write,sentence',
    [
        (lambda d: None, 'there is no such folder'),
        (lambda d: d.mkdir(), 'found there: nothing'),
        (
            lambda d: (write_objects(d), (d / 'train/0.jpg').write_bytes(b'no image')),
            'cannot be read as an image',
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    write, sentence, tmp_path, monkeypatch, capsys
):
    write(tmp_path / 'data')
    for path in (tmp_path / 'data/train').glob('*'):
        path.write_bytes(b'no image')
    assert check(tmp_path / 'data', monkeypatch) == 1
    said = capsys.readouterr().out
    assert said.count('error: ') >= 1
    assert sentence in said


def add_table(folder):
    """A table of something that is no list of images and classes."""
    (folder / 'statistics.csv').write_text('name,count\na,1\n')


def add_class_dict(folder):
    (folder / 'class_dict.csv').write_text('name,r,g,b\na,0,0,0\nb,1,1,1\n')


def add_formulas(folder):
    names = folder / 'classes.txt'
    names.write_text('$a_{$\n_b $x$\n')
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        path = folder / f'{kind}/train/0.{suffix}'
        path.rename(path.with_stem('$a_{$'))


@pytest.mark.parametrize('write', [write_objects, write_maps])
@pytest.mark.parametrize('add', [add_table, add_class_dict])
def test_tables_beside_the_data_do_not_matter(
    write, add, tmp_path, monkeypatch, capsys
):
    write(tmp_path / 'data')
    add(tmp_path / 'data')
    out = ('--out', str(tmp_path / 'x.png'))
    assert check(tmp_path / 'data', monkeypatch, *out) == 0
    assert capsys.readouterr().out.count(' as data for ') == 1


def test_what_nearly_is_data_for_a_task_is_refused_for_it(
    tmp_path, monkeypatch, capsys
):
    write_maps(tmp_path / 'data')
    (tmp_path / 'data/img').mkdir()
    Image.new('RGB', (5, 5)).save(tmp_path / 'data/img/0.png')
    assert check(tmp_path / 'data', monkeypatch) == 1
    said = capsys.readouterr().out
    assert said.count('error: ') == 1
    assert 'has both images and img' in said


@pytest.mark.parametrize('name', ['x.png', 'x', 'x.txt'])
def test_names_are_drawn_as_they_are(name, tmp_path, monkeypatch):
    write_maps(tmp_path / '$a_{$')
    add_formulas(tmp_path / '$a_{$')
    out = ('--out', str(tmp_path / name))
    assert check(tmp_path / '$a_{$', monkeypatch, *out) == 0
    with Image.open(tmp_path / name) as image:
        assert image.format == 'PNG'


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path, monkeypatch, capsys):
    write_maps(tmp_path / 'data')
    out = ('--out', str(tmp_path / 'data/classes.txt/x.png'))
    assert check(tmp_path / 'data', monkeypatch, *out) == 1
    assert 'x.png cannot be drawn: ' in capsys.readouterr().out


def test_the_command_runs_as_printed(tmp_path):
    write_classes(tmp_path / 'data')
    done = run_python('-m', 'mmravlt', 'check-data', 'data', cwd=tmp_path)
    assert 'layout: class folders' in done.stdout
    assert (tmp_path / 'check_data.png').exists()
    help_text = run_python('-m', 'mmravlt', 'check-data', '--help', cwd=tmp_path).stdout
    assert '--val-fraction' in help_text
