"""Make a config that was written for GPUs run on what the machine has."""

import logging
import os
import sys
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log


def use_device(name: str) -> None:
    """Let MMEngine's runners use a device of this machine.

    Args:
        name (str): such as 'cpu', 'cuda' or 'cuda:1'.
    """
    from mmengine.device import utils

    device = torch.device(name)
    if device.type == 'cuda' and device.index is not None:
        torch.cuda.set_device(device)
    utils.DEVICE = device.type


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def adapt_to_device(cfg: Config, tell: Callable[[str], None] = _warn) -> None:
    """Change ``cfg`` in place where this machine has no GPU, and say so once.

    Without a GPU, SyncBN has nothing to run on and MMEngine refuses mixed
    precision: SyncBN becomes BN, and fp16 becomes float32. (bfloat16 is
    possible on CPUs, but mmdet would round the corners of RoIs to it.)
    Several processes talk through gloo instead of NCCL.

    Args:
        cfg (Config): a Runner's config; ``launcher`` tells whether several
            processes were started.
        tell (Callable): takes the sentence that says what was changed.
    """
    if get_device() not in ('cpu', 'mps'):
        return
    changes = []
    if _replace_sync_bn(cfg.model):
        changes.append('SyncBN is replaced by BN')
    if _replace_fp16(cfg):
        changes.append('fp16 is replaced by float32')
    if cfg.get('launcher') == 'pytorch':
        _talk_through_gloo(cfg)
        changes.append('NCCL is replaced by gloo')
    if changes and int(os.environ.get('RANK', 0)) == 0:
        tell(
            f'No GPU was found: {", ".join(changes)}; everything else is as in the '
            'config.'
        )


def _replace_sync_bn(node) -> bool:
    """Turn every ``type='SyncBN'`` below ``node`` into BN."""
    if isinstance(node, (list, tuple)):
        return any([_replace_sync_bn(child) for child in node])
    if not isinstance(node, dict):
        return False
    replaced = any([_replace_sync_bn(child) for child in node.values()])
    if node.get('type') in ('SyncBN', 'MMSyncBN'):
        node['type'] = 'BN'
        replaced = True
    return replaced


def _replace_fp16(cfg: Config) -> bool:
    """Turn mixed precision off in training, validation and testing."""
    replaced = False
    optim_wrapper = cfg.get('optim_wrapper')
    if optim_wrapper and optim_wrapper.get('type') == 'AmpOptimWrapper':
        optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp16_storage', 'cache_enabled'):
            optim_wrapper.pop(key, None)
        replaced = True
    for loop in ('val_cfg', 'test_cfg'):
        if cfg.get(loop) and cfg[loop].pop('fp16', False):
            replaced = True
    return replaced


def _talk_through_gloo(cfg: Config) -> None:
    """Start the process group: MMEngine's own start asks for a GPU."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}


def leave_gloo() -> None:
    """End this process, successfully, if it talks through gloo; else do nothing.

    Gloo's threads sometimes abort a normal exit ("terminate called without an
    active exception"), and torchrun then takes a finished run for a failed one.
    """
    import torch.distributed as dist

    is_ready = dist.is_available() and dist.is_initialized()
    if is_ready and dist.get_backend() == 'gloo':
        dist.barrier()  # no other process may still need this one
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
