"""What today's torch needs of the OpenMMLab packages.

Every bridge looks for the feature it supplies and does nothing where the
installed packages have it.
"""

from importlib import import_module

from packaging.version import Version

MINIMUM_VERSIONS = {'torch': '2.1', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


def install() -> None:
    """Check versions, and stand in for missing mmcv ops and panopticapi.

    And leave out what of mmpretrain does not fit the installed transformers.

    Raises:
        ImportError: if a package is missing or too old for mmravlt.
    """
    for name in MINIMUM_VERSIONS:
        check_version(name)

    from . import mmcv_ops, multimodal, panopticapi

    mmcv_ops.install()
    multimodal.install()
    panopticapi.install()


def check_version(name: str) -> None:
    """Refuse a package that mmravlt cannot work with, in one sentence.

    Args:
        name (str): a key of ``MINIMUM_VERSIONS``.

    Raises:
        ImportError: names the package, its version and the fix.
    """
    minimum = MINIMUM_VERSIONS[name]
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(
            f'mmravlt needs {name}>={minimum}, which is not installed; '
            "in a checkout of mmravlt, `pip install -c constraints.txt -e '.[lite]'` "
            'installs all it needs into a fresh environment; `python -m mmravlt '
            'doctor` says what is there.'
        ) from None
    # by release numbers alone: vendors build 2.1.0a0+…
    if Version(module.__version__).release < Version(minimum).release:
        raise ImportError(
            f'mmravlt needs {name}>={minimum}, but {module.__version__} is '
            f"installed; `pip install -U '{name}>={minimum}'`."
        )
