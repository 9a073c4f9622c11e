"""What mmravlt stands on: MMEngine where it is installed, else PyTorch alone."""

from functools import cache
from importlib.util import find_spec


@cache
def has_mmengine() -> bool:
    """Whether MMEngine is installed; it is decided once, when mmravlt is imported.

    One that cannot be imported counts too, so that its error is seen. Folders that an
    uninstallation left behind do not.
    """
    spec = find_spec('mmengine')
    return spec is not None and spec.origin is not None
