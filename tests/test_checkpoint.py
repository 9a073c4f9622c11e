import argparse
import collections
import io
import logging
import os
import pathlib
import pickle
import re

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmravlt.checkpoint import (
    TRUST_SWITCH,
    DamagedCheckpointError,
    UnsafeCheckpointError,
    load_file,
)

LISTS_TYPES = hasattr(torch.serialization, 'add_safe_globals')  # torch >= 2.4


class Foreign:
    """A type that no checkpoint needs."""

    def __eq__(self, other):
        return type(other) is Foreign


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save_raw(path, operations):
    """A checkpoint whose pickle is ``operations``, written by hand."""
    with torch.serialization._open_zipfile_writer(str(path)) as archive:
        archive.write_record('data.pkl', operations, len(operations))
    return path


@pytest.fixture(autouse=True)
def no_trust(monkeypatch):
    monkeypatch.delenv(TRUST_SWITCH, raising=False)


@pytest.fixture
def saved(tmp_path):
    def save(value, **kwargs):
        path = tmp_path / 'file.pth'
        torch.save(value, path, **kwargs)
        return path

    return save


@pytest.mark.parametrize(
    'value',
    [
        np.float64(0.25),
        np.float32(0.25),
        np.int64(-3),
        np.uint8(200),
        np.bool_(True),
        np.str_('coco'),
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype='>f8'),
        np.array(['a', 'bc']),
        np.array([True, False]),
        np.zeros((0, 4)),
        np.dtype('>i4'),
    ],
    ids=repr,
)
def test_numpy_values_come_back_as_they_were(saved, value):
    loaded = load_file(saved({'value': [value, (value,)]}))['value']
    for got in (loaded[0], loaded[1][0]):
        assert type(got) is type(value)
        if not isinstance(value, np.dtype):
            assert got.dtype == value.dtype and got.shape == value.shape
        np.testing.assert_array_equal(got, value)
    if isinstance(value, np.ndarray):
        assert loaded[0].flags.writeable
        assert loaded[0] is loaded[1][0]


@pytest.mark.parametrize(
    'value',
    [
        {1, 2},
        frozenset({1}),
        slice(1, 5, 2),
        b'',
        b'bytes',
        collections.OrderedDict(a=1),
        argparse.Namespace(lr=0.1, size=(2, 3), sub=argparse.Namespace(a=np.int64(1))),
        pathlib.PurePosixPath('a/b'),
        pathlib.PureWindowsPath('a/b'),
        torch.Size([2, 3]),
        torch.float16,
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_types_come_back_as_they_were(saved, value):
    loaded = load_file(saved({'value': value}))['value']
    assert type(loaded) is type(value)
    assert loaded == value


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (pathlib.PosixPath('a/b'), pathlib.PurePosixPath('a/b')),
        (collections.defaultdict(list, a=[1]), {'a': [1]}),
        (ConfigDict(a=dict(b=1)), {'a': {'b': 1}}),
    ],
    ids=['path', 'defaultdict', 'ConfigDict'],
)
def test_types_with_behaviour_come_back_as_their_data(saved, value, expected):
    loaded = load_file(saved({'value': value}))['value']
    assert type(loaded) is type(expected)
    assert loaded == expected


def test_history_buffer_comes_back_ready_to_use(saved):
    history = HistoryBuffer([1.0, 2.0], [1, 1], max_length=7)
    loaded = load_file(saved({'loss': history, 'again': history}))
    assert loaded['loss'] is loaded['again']
    assert type(loaded['loss']) is HistoryBuffer
    assert loaded['loss'].max_length == 7
    assert loaded['loss'].statistics('mean') == 1.5
    assert isinstance(loaded['loss'].statistics('max'), np.float64)
    loaded['loss'].update(6.0)
    assert loaded['loss'].statistics('mean') == 3.0


def test_history_buffer_of_a_file_can_not_change_the_class(saved):
    before = dict(HistoryBuffer._statistics_methods)
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history._statistics_methods = {'mean': 'not a function'}  # shadows the class's
    path = saved(history)
    assert b'not a function' in path.read_bytes()
    assert load_file(path).statistics('mean') == 1.5
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_files_of_numpy_1_and_2_are_both_read(tmp_path, core):
    module = f'{core}.multiarray'.encode()
    dtype = b'cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR(K\x03X\x01\x00\x00\x00<'
    dtype += b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    # 1.0 as eight bytes, all of them printable in latin1 but for six zeros
    number = b'c_codecs\nencode\n(X\x09\x00\x00\x00' + b'\x00' * 6
    number += '\xf0'.encode() + b'?' + b'X\x06\x00\x00\x00latin1tR'
    scalar = b'c' + module + b'\nscalar\n(' + dtype + number + b'tR'
    array = b'c' + module + b'\n_reconstruct\n(cnumpy\nndarray\n(K\x00tNtR'
    array += b'(K\x01(K\x01t' + dtype + b'\x89' + number + b'tb'
    path = save_raw(tmp_path / 'f.pth', b'\x80\x02(' + scalar + array + b't.')
    scalar, array = load_file(path)
    assert type(scalar) is np.float64 and scalar == 1.0
    assert type(array) is np.ndarray and array.tolist() == [1.0]


def test_tensors_keep_parameters_dtypes_sharing_and_metadata(saved):
    layer = torch.nn.BatchNorm2d(3).to(torch.bfloat16)
    path = saved({'state_dict': layer.state_dict(), 'p': layer.weight})
    loaded = load_file(path)
    assert loaded['state_dict']._metadata == layer.state_dict()._metadata
    assert loaded['p'].dtype is torch.bfloat16
    assert isinstance(loaded['p'], torch.nn.Parameter)
    assert loaded['p'].data_ptr() == loaded['state_dict']['weight'].data_ptr()


@pytest.mark.parametrize('is_zip', [True, False], ids=['zip', 'before torch 1.6'])
def test_mmcv_1_checkpoint_is_read(saved, is_zip):
    weights = collections.OrderedDict(conv=torch.ones(2, 2))
    weights._metadata = collections.OrderedDict({'': {'version': 1}})
    meta = {
        'env_info': 'sys.platform: linux',
        'config': 'model = dict()',
        'CLASSES': ('cat', 'dog'),
        'PALETTE': [[1, 2, 3]],
        'seed': None,
        'epoch': 12,
        'hook_msgs': {'best_score': np.float64(0.5), 'best_ckpt': 'a.pth'},
    }
    optimizer = {'state': {0: {'momentum_buffer': torch.ones(2)}}, 'param_groups': []}
    value = {'meta': meta, 'state_dict': weights, 'optimizer': optimizer}
    loaded = load_file(saved(value, _use_new_zipfile_serialization=is_zip))
    assert loaded['meta'] == meta
    assert loaded['state_dict']._metadata == weights._metadata
    torch.testing.assert_close(loaded['state_dict']['conv'], torch.ones(2, 2))
    torch.testing.assert_close(loaded['optimizer'], optimizer)


def test_open_files_are_read_too(saved):
    buffer = io.BytesIO(saved({'a': np.float64(1)}).read_bytes())
    assert load_file(buffer) == {'a': 1.0}


@pytest.mark.parametrize('is_zip', [True, False], ids=['zip', 'before torch 1.6'])
@pytest.mark.parametrize(
    ('function', 'args', 'named'),
    [
        (os.system, ('touch {}',), r'(posix|nt)\.system'),
        (eval, ("open('{}', 'w')",), r'builtins\.eval'),
        (os.mkdir, ('{}',), r'(posix|nt)\.mkdir'),
        (getattr, (dict, 'fromkeys'), r'builtins\.getattr'),
        (Foreign, (), r'test_checkpoint\.Foreign'),
        (np.dtype, ('O',), r"numpy\.dtype\('O'\)"),
    ],
    ids=['system', 'eval', 'mkdir', 'getattr', 'class', 'pointers'],
)
def test_what_could_act_is_refused_by_name(
    saved, tmp_path, function, args, named, is_zip
):
    trace = tmp_path / 'trace'
    args = tuple(a.format(trace) if isinstance(a, str) else a for a in args)
    value = {'state_dict': {}, 'x': Calls(function, *args)}
    path = saved(value, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UnsafeCheckpointError, match=named) as caught:
        load_file(path)
    assert not trace.exists()
    message = str(caught.value)
    assert str(path) in message and f'{TRUST_SWITCH}=1' in message
    assert '\n' not in message and 'weights_only' not in message
    assert isinstance(caught.value, pickle.UnpicklingError)


# eight zero bytes, as protocol 2 writes them
EIGHT_BYTES = b'c_codecs\nencode\n(X\x08\0\0\0' + b'\0' * 8 + b'X\6\0\0\0latin1tR'


@pytest.mark.parametrize(
    'operations',
    [
        b'cnumpy\nndarray\n((K\x01tX\x01\0\0\0O' + EIGHT_BYTES + b'tR',
        b'cmmengine.logging.history_buffer\nHistoryBuffer\n((K\x01t(K\x01ttR',
    ],
    ids=['array of pointers', 'buffer of any object'],
)
def test_constructors_that_trust_their_arguments_are_not_called(tmp_path, operations):
    path = save_raw(tmp_path / 'f.pth', b'\x80\x02' + operations + b'.')
    with pytest.raises(TypeError):
        load_file(path)


def test_torchscript_is_refused_by_name(tmp_path):
    path = tmp_path / 'script.pth'
    with torch.serialization._open_zipfile_writer(str(path)) as archive:
        for name in ('data.pkl', 'constants.pkl'):
            archive.write_record(name, b'\x80\x02}.', 4)
    with pytest.raises(UnsafeCheckpointError, match=r'torch\.jit\.ScriptModule'):
        load_file(path)


def test_pickles_of_other_protocols_are_read_or_refused_in_one_sentence(saved):
    path = saved({'a': {1}, 'b': np.float64(1)}, pickle_protocol=4)
    try:
        assert load_file(path) == {'a': {1}, 'b': 1.0}
    except UnsafeCheckpointError as error:
        assert str(path) in str(error) and '\n' not in str(error)


def test_the_switch_loads_everything_and_warns(saved, monkeypatch, caplog):
    path = saved({'x': Foreign()})
    monkeypatch.setenv(TRUST_SWITCH, '1')
    with caplog.at_level(logging.WARNING):
        assert load_file(path) == {'x': Foreign()}
    (record,) = caplog.records
    assert str(path) in record.getMessage()


@pytest.mark.parametrize('value', ['', '0', 'true'])
def test_only_1_turns_the_switch(saved, monkeypatch, value):
    path = saved({'x': Foreign()})
    monkeypatch.setenv(TRUST_SWITCH, value)
    with pytest.raises(UnsafeCheckpointError):
        load_file(path)


def test_safe_files_load_without_a_warning(saved, caplog):
    load_file(saved({'x': np.float64(1)}))
    assert not caplog.records


@pytest.mark.skipif(not LISTS_TYPES, reason='this torch has no list of types')
@pytest.mark.parametrize('refused', [False, True])
def test_torch_list_of_types_is_as_before(saved, refused):
    path = saved({'x': Foreign() if refused else 1})
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([argparse.Namespace, Calls])
    try:
        try:
            load_file(path)
        except UnsafeCheckpointError:
            assert refused
        after = torch.serialization.get_safe_globals()
        assert set(after) == {*before, argparse.Namespace, Calls}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.skipif(not LISTS_TYPES, reason='this torch has no list of types')
def test_what_the_user_allows_is_read_beside_our_types(saved):
    reconstruct, scalar = (v.__reduce__()[0] for v in (np.zeros(1), np.float64(1)))
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    path = saved({'x': Foreign(), 'a': np.ones(2), 's': np.float64(1), 'h': history})
    before = list(torch.serialization.get_safe_globals())
    theirs = [Foreign, getattr, np.ndarray, np.dtype, reconstruct, scalar]
    torch.serialization.add_safe_globals([*theirs, HistoryBuffer])
    try:
        loaded = load_file(path)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert loaded['x'] == Foreign() and loaded['s'] == 1.0
    assert loaded['a'].tolist() == [1.0, 1.0]
    assert loaded['h'].statistics('mean') == 1.5


@pytest.mark.skipif(not LISTS_TYPES, reason='this torch has no list of types')
def test_torch_is_asked_for_weights_only(saved, monkeypatch):
    asked = []
    load = torch.load

    def spy(*args, **kwargs):
        asked.append(kwargs['weights_only'])
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', spy)
    load_file(saved({'x': np.float64(1)}))
    with pytest.raises(UnsafeCheckpointError):
        load_file(saved({'x': Foreign()}))
    assert asked == [True, True]


@pytest.mark.parametrize('trusted', ['0', '1'])
@pytest.mark.parametrize('keep', [0, 3, 0.5, -1], ids=str)
@pytest.mark.parametrize('is_zip', [True, False], ids=['zip', 'before torch 1.6'])
def test_the_beginning_of_a_file_is_called_incomplete(
    saved, monkeypatch, keep, is_zip, trusted
):
    if trusted == '1' and not is_zip:
        pytest.skip('the old format shows its end only to the unpickler')
    monkeypatch.setenv(TRUST_SWITCH, trusted)
    path = saved({'w': torch.ones(500)}, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    cut = whole[: int(keep * len(whole)) if keep == 0.5 else keep]
    path.write_bytes(cut)
    with pytest.raises(
        DamagedCheckpointError, match=re.escape(f'{path} ({len(cut)} bytes)')
    ) as caught:
        load_file(path)
    assert 'only the beginning of one' in str(caught.value)


@pytest.mark.parametrize('keep', range(1, 400, 7))
def test_old_files_cut_in_their_first_pickles_are_refused(saved, keep):
    value = {'a': {'b': np.float64(1), 'c': 'text'}, 'w': torch.ones(9)}
    path = saved(value, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:keep])
    # the first half of a type's name is the name of no type
    with pytest.raises((DamagedCheckpointError, UnsafeCheckpointError)):
        load_file(path)


@pytest.mark.parametrize(
    'content',
    [b'<html>404</html>', b'version https://git-lfs.github.com/spec/v1\n', b'PK\5\6'],
)
def test_what_is_no_checkpoint_is_said_so(tmp_path, content):
    path = tmp_path / 'page.pth'
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r'page\.pth \(\d+ bytes\)'):
        load_file(path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / 'absent.pth'
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        load_file(path)
