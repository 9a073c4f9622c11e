"""A stand-in for mmcv's compiled operators, `mmcv._ext`, where it is not usable.

mmdet imports `mmcv.ops`, and every module there asks `mmcv._ext` for its
operators at import. mmcv-lite and onedl-mmcv built as pure Python do not have that
extension, and one built for another torch is found but does not load; either
way `import mmdet` fails. `install()` then puts a module in its place which

- computes the operators in `STAND_INS` with torchvision and PyTorch, on CPU and
  GPU and with fp16 and bf16 inputs, with the results of the compiled ones;
- answers every other name with a function that raises when it is called.

A compiled extension that loads is always left alone.

Upstream: https://github.com/open-mmlab/mmdetection/issues/11475 and .../11983. mmdet
3.3.0 takes mmcv below 2.2 only, whose operators are compiled for one torch and one CUDA
each; mmcv-lite 2.1.0 has none, nor has onedl-mmcv 2.3.6 where it was built without
torch. May go when every mmcv that mmdet takes has `nms`, `softnms`, `roi_align` and
`sigmoid_focal_loss` for every torch; `install()` does nothing where it has.
"""

from .install import EXT, Status, install, status
from .operators import STAND_INS
from .operators.common import FIX

__all__ = ['EXT', 'FIX', 'STAND_INS', 'Status', 'install', 'status']
