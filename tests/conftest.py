import os
import random
import tempfile
from importlib import metadata

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this once, when it is imported: its kernels then run on the CPU.
    os.environ.setdefault('TRITON_INTERPRET', '1')

# What is found about data is kept here, not in the user's cache.
_CACHE = tempfile.TemporaryDirectory(prefix='mmravlt-tests-')
os.environ['MMRAVLT_CACHE'] = _CACHE.name

import mmravlt  # noqa: E402, F401  (first: mmdet cannot be imported without its ops)

from . import quick_configs  # noqa: E402, F401


def let_interpreted_loops_run():
    """Give Triton's interpreter the bounds of its loops as NumPy 2.5 allows it.

    A scalar of a kernel is an array with one element there, which it converts by
    `int`; NumPy converts only arrays without dimensions from 2.5 on.
    """
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    original = interpreter._patch_lang_tensor

    def patch(tensor, *scope):
        original(tensor, *scope)  # which undoes both after the kernel
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch


let_interpreted_loops_run()

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def pytest_addoption(parser):
    parser.addoption('--seed', type=int, default=0, help='of all random numbers')
    parser.addoption('--shuffle', action='store_true', help='the order, by the seed')


def pytest_collection_modifyitems(config, items):
    """Shuffle the modules, and the tests in each: their fixtures are costly."""
    if config.getoption('--shuffle'):
        shuffle = random.Random(config.getoption('--seed')).shuffle
        modules = list(dict.fromkeys(item.path for item in items))
        shuffle(modules)
        shuffle(items)
        items.sort(key=lambda item: modules.index(item.path))


def seed_all(config):
    seed = config.getoption('--seed')
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    """What several tests share does not depend on which of them runs first."""
    if fixturedef.scope != 'function':
        seed_all(request.config)


@pytest.fixture(autouse=True)
def fixed_seed(request):
    seed_all(request.config)


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=NEEDS_GPU)])
def device(request):
    return torch.device(request.param)


@pytest.fixture
def distribution():
    """What pip knows of mmravlt; without that, in a mere checkout, skips."""
    try:
        return metadata.distribution('mmravlt')
    except metadata.PackageNotFoundError:
        pytest.skip('pip did not install mmravlt here')
