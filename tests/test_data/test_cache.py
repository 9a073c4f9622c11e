"""What is found about data is kept until the data changes."""

import os
import threading

import pytest

from mmravlt.data import DataError, DataOptions, Prepared
from mmravlt.data.cache import prepare_once


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / 'data'
    folder.mkdir()
    (folder / 'a.txt').write_text('one')
    return folder


class Reader:
    """Counts how often it was asked."""

    def __init__(self, error=None):
        self.calls = 0
        self.error = error

    def __call__(self, folder):
        self.calls += 1
        if self.error:
            raise DataError(self.error)
        return Prepared('some', ['a'], {}, notes=[f'call {self.calls}'])


def test_data_is_read_again_only_when_it_or_the_options_change(data):
    reader = Reader()

    def prepare(**options):
        return prepare_once(data, 'some task', DataOptions(**options), reader)

    first = prepare()
    assert prepare() == first
    assert reader.calls == 1
    assert prepare(seed=1) != first
    (data / 'a.txt').write_text('other')
    assert prepare().notes == ['call 3']
    (data / 'sub').mkdir()
    (data / 'sub/b.txt').write_text('new')
    assert prepare().notes == ['call 4']
    os.utime(data / 'sub/b.txt', (1, 1))
    assert prepare().notes == ['call 5']


def test_a_refusal_is_kept_too(data):
    reader = Reader('no')
    for _ in range(2):
        with pytest.raises(DataError, match='no'):
            prepare_once(data, 'some task', DataOptions(), reader)
    assert reader.calls == 1


def test_links_that_go_round_end(data):
    (data / 'sub').mkdir()
    (data / 'sub/up').symlink_to(data)
    (data / 'gone').symlink_to(data / 'nowhere')
    reader = Reader()
    prepare_once(data, 'some task', DataOptions(), reader)
    assert reader.calls == 1


def test_other_processes_of_a_machine_wait_for_the_first(data, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    reader, other = Reader(), Reader()
    waiting = []

    def wait():
        waiting.append(prepare_once(data, 'some task', DataOptions(), other))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(1)
    assert thread.is_alive() and not waiting
    monkeypatch.setenv('LOCAL_RANK', '0')
    first = prepare_once(data, 'some task', DataOptions(), reader)
    thread.join(30)
    assert waiting == [first]
    assert (reader.calls, other.calls) == (1, 0)


def test_without_a_place_to_keep_it_each_process_reads(data, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('MMRAVLT_CACHE', str(tmp_path / 'file'))
    monkeypatch.setenv('LOCAL_RANK', '1')
    reader = Reader()
    assert prepare_once(data, 'some task', DataOptions(), reader).notes == ['call 1']
    assert prepare_once(data, 'some task', DataOptions(), reader).notes == ['call 2']


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (['a', 'b'], 'some, 2 classes; train'),
        (['a'], 'some, 1 class; train'),
        ([], 'some; train'),
    ],
)
def test_what_was_found_is_said_in_one_line(classes, words):
    splits = dict(train=dict(images=3, objects=5))
    found = Prepared('some', classes, splits).found
    assert found == f'{words} 3 images with 5 objects'
