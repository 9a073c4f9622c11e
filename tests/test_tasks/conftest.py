import shutil

import pytest

from demo.shapes import write_shapes


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_shapes(folder, num_train=3, num_val=2, size=64)
    return folder


@pytest.fixture
def data(shapes, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(shapes, tmp_path / 'data')
