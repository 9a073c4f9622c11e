"""Let MMEngine read and write configs in less time, with the same results.

It lays out the same text anew each time that it writes a config, and for each base that
is named as ``mmdet::_base_/...`` it reads a hundred metafiles, which list no bases.
"""

from __future__ import annotations

from functools import cache


def install() -> None:
    """Change MMEngine, in a process that does nothing but run a command."""
    from mmengine.config import config
    from yapf.yapflib import yapf_api

    format_code, find = yapf_api.FormatCode, config._get_external_cfg_path

    @cache
    def format_once(text: str, options: tuple) -> tuple[str, bool]:
        style = dict(options)
        style['style_config'] = dict(style['style_config'])
        return format_code(text, **style)

    def format_config(text: str, style_config: dict, **others) -> tuple[str, bool]:
        style = tuple(style_config.items())
        return format_once(text, (('style_config', style), *others.items()))

    def find_config(package_path: str, cfg_file: str) -> str:
        if cfg_file.startswith('_base_/'):
            raise ValueError(f'{cfg_file} is a base')  # which MMEngine expects
        return find(package_path, cfg_file)

    # MMEngine imports it by name with the module; its fork does so when it is called.
    config.FormatCode = yapf_api.FormatCode = format_config
    config._get_external_cfg_path = find_config
