"""A stand-in for mmcv's compiled operators, `mmcv._ext`, where it is not usable.

mmdet imports `mmcv.ops`, and every module there asks `mmcv._ext` for its
operators at import. mmcv-lite and onedl-mmcv built as pure Python do not have that
extension, and one built for another torch is found but does not load; either
way `import mmdet` fails. `install()` then puts a module in its place which

- computes the operators in `STAND_INS` with torchvision and PyTorch, on CPU and
  GPU and with fp16 and bf16 inputs, with the results of the compiled ones;
- answers every other name with a function that raises when it is called.

A compiled extension that loads is always left alone.
"""

from .install import EXT, Status, install, status
from .operators import STAND_INS
from .operators.common import FIX

__all__ = ['EXT', 'FIX', 'STAND_INS', 'Status', 'install', 'status']
