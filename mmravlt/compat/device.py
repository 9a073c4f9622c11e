"""Make a config that was written for GPUs run on what the machine has."""

import logging
import os

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log


def adapt_to_device(cfg: Config) -> None:
    """Change ``cfg`` in place where this machine has no GPU, and say so once.

    Without a GPU, SyncBN has nothing to run on and MMEngine refuses mixed
    precision: SyncBN becomes BN, and fp16 becomes float32. (bfloat16 is
    possible on CPUs, but mmdet would round the corners of RoIs to it.)
    Several processes talk through gloo instead of NCCL.

    Args:
        cfg (Config): a Runner's config; ``launcher`` tells whether several
            processes were started.
    """
    if get_device() not in ('cpu', 'mps'):
        return
    changes = []
    if _replace_sync_bn(cfg.model):
        changes.append('SyncBN is replaced by BN')
    optim_wrapper = cfg.get('optim_wrapper')
    if optim_wrapper and optim_wrapper.get('type') == 'AmpOptimWrapper':
        optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp16_storage', 'cache_enabled'):
            optim_wrapper.pop(key, None)
        changes.append('fp16 by float32')
    if cfg.get('launcher', 'none') != 'none':
        _talk_through_gloo(cfg)
        changes.append('NCCL by gloo')
    if changes and int(os.environ.get('RANK', 0)) == 0:
        print_log(
            f'No GPU was found: {", ".join(changes)}; everything else is as in the '
            'config.',
            logger='current',
            level=logging.WARNING,
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


def _talk_through_gloo(cfg: Config) -> None:
    """Start the process group: MMEngine's own start asks for a GPU."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
