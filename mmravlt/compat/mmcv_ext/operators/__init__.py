"""What computes the operators of `mmcv._ext`: a file for each family of them.

Signatures are those with which mmcv's Python wrappers, the files of the same names
in `mmcv/ops`, call the extension: results go into buffers that the caller passes,
except that `nms` and `softnms` return indices.

To add a family, write its file with the names of its `OPERATORS` and list it here.
"""

from . import focal_loss, info, nms, roi_align

STAND_INS = {
    name: getattr(family, name)
    for family in (nms, roi_align, focal_loss, info)
    for name in family.OPERATORS
}
