"""What the operators share."""

import torch

FIX = (
    f'install an mmcv with compiled ops, built for torch {torch.__version__} '
    '(`mim install mmcv`, or from source); `python -m mmravlt doctor` tells more'
)


def torchvision_ops():
    """torchvision's compiled operators, or a RuntimeError that says what to do.

    Imported at the first call, so that a torchvision which does not fit torch
    breaks only what needs it.
    """
    try:
        import torchvision  # noqa: F401  registers the operators

        ops = torch.ops.torchvision
        _ = ops.nms, ops.roi_align, ops._roi_align_backward
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RuntimeError(
            'nms and roi_align need torchvision, which does not load '
            f'({error}); install the torchvision release that belongs to '
            f'torch {torch.__version__}, or {FIX}'
        ) from error
    return ops


def compute_dtype(*tensors):
    """float64 if a tensor has it, else float32.

    fp16 and bf16 are computed in fp32: torchvision lacks bf16 kernels for
    roi_align's backward and half ones for nms on CPU, and 16 bits do not hold
    pixel coordinates of common image sizes.
    """
    wide = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32
