"""How mmcv was compiled, as `mmcv/ops/info.py` asks for it."""

OPERATORS = 'get_compiler_version', 'get_compiling_cuda_version'


def get_compiler_version():
    """What mmcv's environment report prints as its C++ compiler."""
    return 'n/a'


def get_compiling_cuda_version():
    """What mmcv's environment report prints as its CUDA compiler."""
    return 'n/a'
