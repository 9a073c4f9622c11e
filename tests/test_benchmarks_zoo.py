"""The command that trains kinds of attention side by side."""

import re

import pytest
import torch
from PIL import Image

from benchmarks import zoo
from benchmarks.errors import BenchmarkError

from .test_benchmarks import read, run


def write_images(folder, number):
    """Two classes, dark and bright."""
    for split in ('train', 'val'):
        for label, value in (('dark', 60), ('bright', 190)):
            (folder / split / label).mkdir(parents=True)
            for i in range(number):
                image = Image.new('RGB', (20 + i, 16), (value + i, value, value))
                image.save(folder / split / label / f'{i}.png')


SMALL_ZOO = [*('--size', 16, '--batch', 4, '--dim', 16, '--depth', 1, '--heads', 2)]


def test_zoo_trains_kinds_side_by_side(tmp_path, capsys):
    write_images(tmp_path / 'data', 5)
    arguments = ['--data', tmp_path / 'data', '--epochs', 4, '--seeds', 2, *SMALL_ZOO]
    run('zoo', *arguments, '--kinds', 'rala', 'hydra', '--out', tmp_path)
    (path,) = tmp_path.glob('*.csv')
    assert path.name == 'zoo_data_16px_deit_dim16_depth1_patch4_epochs4_batch4.csv'
    rows = read(path)
    names = [(row['kind'], row['seed']) for row in rows]
    assert names == [('rala', '0'), ('hydra', '0'), ('rala', '1'), ('hydra', '1')]
    assert all(row['steps'] == '8' and float(row['seconds']) > 0 for row in rows)
    # The FFN makes up for RALA's gate, but for its bias.
    assert int(rows[0]['params']) == int(rows[1]['params']) + 16 - 8
    printed = capsys.readouterr().out
    top1 = [float(row['top1']) for row in rows if row['kind'] == 'rala']
    line = f'{sum(top1) / 2:.1f} ± {abs(top1[0] - top1[1]) / 2**0.5:.1f}'
    assert re.search(rf'\| rala +\| +0\.\d+ \| +{line} \| +2 \|', printed)


def test_zoo_learns(tmp_path):
    write_images(tmp_path, 8)
    setting = zoo.Setting(epochs=8, batch=4, size=16, dim=16, depth=1, heads=2)
    data = zoo.load(tmp_path, setting)
    assert zoo.train('linear', 0, data, setting, lambda: None)['top1'] == 100


def test_zoo_shows_every_kind_the_same_batches(tmp_path, monkeypatch):
    write_images(tmp_path, 8)
    setting = zoo.Setting(epochs=2, batch=4, size=16, dim=16, depth=1, heads=2)
    data = zoo.load(tmp_path, setting)
    seen, batches = [], zoo.batches

    def watched(*args):
        for images, labels in batches(*args):
            seen.append(images.clone())
            yield images, labels

    monkeypatch.setattr(zoo, 'batches', watched)
    for kind, seed in [('linear', 0), ('focused', 0), ('linear', 1)]:
        zoo.train(kind, seed, data, setting, lambda: None)
    first, second, third = (torch.cat(seen[i : i + 8]) for i in (0, 8, 16))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize('epochs', [1, 2, 10])
def test_zoo_trains_as_short_as_wanted(tmp_path, epochs):
    write_images(tmp_path, 2)
    setting = zoo.Setting(epochs=epochs, batch=4, size=16, dim=16, depth=1, heads=2)
    row = zoo.train('hydra', 0, zoo.load(tmp_path, setting), setting, lambda: None)
    assert row['steps'] == epochs


@pytest.mark.parametrize(
    'options,message',
    [
        (['--kinds', 'x'], 'there is no attention x; known are softmax, '),
        (['--kinds', 'rala', 'rala'], 'a kind stands twice'),
        (['--dim', 20], '--dim is 20 for 2 heads; give a multiple of 8'),
        (['--patch', 5], '--size is 16 and --patch 5; give a size that'),
        (['--batch', 99], 'has 4 training images, --batch is 99; give a smaller'),
        (['--data', 'nowhere'], 'nowhere/train cannot be used'),
    ],
)
def test_zoo_says_what_is_wrong(tmp_path, options, message):
    write_images(tmp_path, 2)
    with pytest.raises(SystemExit, match=message):
        run('zoo', '--data', tmp_path, *SMALL_ZOO, *options)


def test_zoo_refuses_splits_of_other_classes(tmp_path):
    write_images(tmp_path, 2)
    (tmp_path / 'val/dark').rename(tmp_path / 'val/darker')
    with pytest.raises(BenchmarkError, match='they must be the same'):
        zoo.load(tmp_path, zoo.Setting())
