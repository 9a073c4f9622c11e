"""MMEngine's own reading of checkpoints, where it does not ask for ours."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmravlt.checkpoint import UnsafeCheckpointError
from mmravlt.compat import torch_load


class Foreign:
    """A type that no checkpoint needs."""


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """Saves a value where the loader of s3:// finds it."""
    path = tmp_path / 'file.pth'
    backend = SimpleNamespace(get=lambda filename: path.read_bytes())
    monkeypatch.setattr(
        mmengine_checkpoint, 'get_file_backend', lambda *args, **kwargs: backend
    )

    def save(value):
        torch.save(value, path)
        return 's3://bucket/file.pth'

    return save


def test_files_in_the_cloud_are_read_if_they_are_mmengines_own(cloud):
    value = {'state_dict': {'w': torch.ones(2)}, 'loss': HistoryBuffer([2.0], [1])}
    loaded = CheckpointLoader.load_checkpoint(cloud(value))
    assert loaded['loss'].mean() == 2.0
    torch.testing.assert_close(loaded['state_dict']['w'], torch.ones(2))


def test_other_types_in_the_cloud_are_refused(cloud):
    with pytest.raises(UnsafeCheckpointError, match='Foreign'):
        CheckpointLoader.load_checkpoint(cloud({'x': Foreign()}))


def test_a_safe_reader_is_left_alone(monkeypatch):
    safe = SimpleNamespace(load=torch_load.load)
    monkeypatch.delattr(mmengine_checkpoint, '_safe_torch_load', raising=False)
    monkeypatch.setattr(mmengine_checkpoint, 'torch', safe)
    torch_load.install()
    assert mmengine_checkpoint.torch is safe


@pytest.mark.parametrize('unsafe', [True, False])
def test_a_reader_that_unpickles_everything_or_too_little_is_replaced(
    monkeypatch, unsafe
):
    def load(file, map_location=None):
        return torch.load(file, map_location, weights_only=not unsafe)

    monkeypatch.setattr(mmengine_checkpoint, '_safe_torch_load', load, raising=False)
    torch_load.install()
    assert mmengine_checkpoint._safe_torch_load is torch_load.load


def test_torch_is_otherwise_as_before():
    assert mmengine_checkpoint.torch.nn is torch.nn
    assert mmengine_checkpoint.torch.save is torch.save
