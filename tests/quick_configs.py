"""Importing this makes MMEngine read and write configs quickly.

Of a small run, that is most of what is left once the libraries are imported: for each
base of a config that is named as ``mmdet::...``, MMEngine reads a hundred metafiles,
and it lays out the text of the whole config each time that it writes it.
"""

import functools

from mmengine.config import config, utils
from yapf.yapflib import yapf_api


def _check(text: str, **_) -> tuple[str, bool]:
    """As yapf's FormatCode: refuse what is no Python. But change nothing."""
    compile(text, 'config', 'exec')
    return text, False


# MMEngine imports it by name with the module; its fork does so when it is called.
config.FormatCode = yapf_api.FormatCode = _check
utils.load = functools.cache(utils.load)
config.is_installed = functools.cache(config.is_installed)
for _library in ('mmdet', 'mmpretrain'):  # now, for all that are forked from here
    config.Config._get_cfg_path(f'{_library}::_base_/default_runtime.py', '')
