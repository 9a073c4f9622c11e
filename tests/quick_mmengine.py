"""Spare the tests what MMEngine does to each config and none of them looks at.

A training lays its config out with yapf five times, which takes most of a small run;
and to find a base such as ``mmdet::_base_/default_runtime.py``, the metafiles of all
models of mmdet are read. Once this is imported, configs are written as they are, and a
process reads a metafile once.
"""

import ast
import functools

from mmengine.config import config, utils
from yapf.yapflib import yapf_api


def _as_it_is(text, **_):
    ast.parse(text)  # yapf too refuses what is no Python
    return text, True


# MMEngine imports it by name with the module; its fork does so when it is called.
config.FormatCode = yapf_api.FormatCode = _as_it_is
utils.load = functools.cache(utils.load)
