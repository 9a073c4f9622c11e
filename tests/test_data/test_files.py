"""Which files of a folder are used, and what is said of the others."""

import time

import pytest

from mmravlt.data import DataError
from mmravlt.data.files import check_files, list_files

SUFFIXES = ('.jpg', '.png')


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'data'
    names = ['ant/0.jpg', 'ant/1.PNG', 'bee/deep/2.jpg', 'loose.png']
    names += [
        'ant/.ipynb_checkpoints/0-checkpoint.jpg',
        '.cache/3.jpg',
        'ant/.4.jpg',
        'ant/@eaDir/5.jpg',
    ]
    names += ['__MACOSX/ant/6.jpg']
    names += ['ant/a.heic', 'bee/b.HEIC', 'bee/c.jpg.bak', 'README']
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


USED = ['ant/0.jpg', 'ant/1.PNG', 'bee/deep/2.jpg', 'loose.png']


def test_hidden_files_and_folders_are_left_out(folder):
    assert list_files(folder, SUFFIXES) == USED


def test_links_are_followed_once(folder, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere/5.jpg').touch()
    (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
    (folder / 'again').symlink_to(tmp_path / 'elsewhere')
    (folder / 'a').symlink_to(folder / 'bee')  # the folder itself counts, not the link
    (folder / 'bee/up').symlink_to(folder)
    found = list_files(folder, SUFFIXES)
    assert len([name for name in found if name.endswith('5.jpg')]) == 1
    assert [name for name in found if not name.endswith('5.jpg')] == USED


def test_the_first_error_in_order_is_raised(capsys):
    def check(i):
        time.sleep(0.01 * (i == 3))
        if i in (3, 4):
            raise DataError(f'item {i}')
        return -i

    assert check_files(check, [5, 1, 2], 'items') == [-5, -1, -2]
    with pytest.raises(DataError, match='item 3'):
        check_files(check, [0, 3, 4], 'items')
    assert capsys.readouterr().out == ''


def test_long_checks_tell_how_far_they_are(monkeypatch, capsys):
    times = iter(range(0, 1000, 6))
    monkeypatch.setattr('mmravlt.data.files.time.monotonic', lambda: next(times))
    check_files(str, list(range(1200)), 'items')
    assert '--data: checked 500 of 1200 items' in capsys.readouterr().out
