import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this once, when it is imported: its kernels then run on the CPU.
    os.environ.setdefault('TRITON_INTERPRET', '1')

import mmravlt  # noqa: E402, F401  (first: mmdet cannot be imported without its ops)

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=NEEDS_GPU)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
