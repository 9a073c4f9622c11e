"""What the tests of the stand-in for `mmcv._ext` share."""

import pytest
import torch

pytest.importorskip('mmcv')

from mmravlt.compat import mmcv_ext  # noqa: E402

STAND_IN = mmcv_ext.install()
needs_stand_in = pytest.mark.skipif(
    not STAND_IN, reason='the compiled ops of mmcv are in use'
)
DEVICES = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
HALVES = (torch.float16, torch.bfloat16)
on_devices = pytest.mark.parametrize('device', DEVICES)


def error(actual, expected):
    """max|a - b| / max|b|."""
    assert actual.shape == expected.shape
    difference = (actual.detach().cpu().double() - expected.double()).abs()
    return float(difference.max() / expected.double().abs().max())
