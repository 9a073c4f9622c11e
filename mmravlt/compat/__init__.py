"""Patches, so that the OpenMMLab packages run on today's torch.

Each is a module of its own with an `install()`, which looks for what it supplies and
does nothing where the installed packages have it. Its docstring says what is amiss
upstream, and when it may go: then it is deleted, with its name in `PATCHES`.
"""

from importlib import import_module

from packaging.version import Version

#: The modules of this folder, any of which may be left out.
PATCHES = ('mmcv_ext', 'multimodal', 'torch_load')

MINIMUM_VERSIONS = {'torch': '2.1', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


def install() -> None:
    """Check versions, and apply the patches; may be called any number of times.

    Raises:
        ImportError: if a package is missing or too old for mmravlt.
    """
    for name in MINIMUM_VERSIONS:
        check_version(name)
    for name in PATCHES:
        import_module(f'.{name}', __name__).install()


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
