"""Packages that mmravlt cannot work with are refused in one sentence."""

import sys
from types import ModuleType

import pytest

from mmravlt import compat


def test_an_old_package_is_named_with_the_mend(monkeypatch):
    old = ModuleType('mmengine')
    old.__version__ = '0.9.1'
    monkeypatch.setitem(sys.modules, 'mmengine', old)
    with pytest.raises(ImportError, match=r'mmengine>=0\.10\.7, but 0\.9\.1.*pip inst'):
        compat.check_version('mmengine')


def test_a_missing_package_is_named_with_the_mend(monkeypatch):
    monkeypatch.setitem(compat.MINIMUM_VERSIONS, 'no_such_package', '1.0')
    with pytest.raises(ImportError, match=r'no_such_package>=1\.0, which is not inst'):
        compat.check_version('no_such_package')


@pytest.mark.parametrize('name', compat.MINIMUM_VERSIONS)
def test_what_is_installed_passes(name):
    compat.check_version(name)
