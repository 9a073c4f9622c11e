"""What the tests of the configs share: read a leaf, build it, follow its rates."""

import copy
import functools
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from torch import nn

from mmravlt import config_path
from mmravlt.openmmlab.device import adapt_to_device

from .quick_init import quick_init

DROP_PATH = dict(t=0.10, s=0.15, b=0.40, l=0.55)
# Of L2ViT, by experiment and variant.
L2VIT_DROP_PATH = {
    'retinanet_l2vit_{}_1x': dict(t=0.1, s=0.1, b=0.2),
    'mask_rcnn_l2vit_{}_1x': dict(t=0.1, s=0.1, b=0.2),
    'mask_rcnn_l2vit_{}_3x': dict(t=0.2, s=0.2, b=0.3),
    'upernet_l2vit_{}_2x': dict(t=0.3, s=0.3, b=0.3),
}
L2VIT_FILES = dict(t='Tiny', s='Small', b='Base')


def is_l2vit(leaf):
    return '_l2vit_' in leaf


def assert_backbone(leaf, cfg, model):
    """The backbone is the one that the name of the leaf says."""
    arch = leaf.split('_')[-2]
    backbone, url = cfg.model.backbone, cfg.model.backbone.init_cfg.checkpoint
    assert backbone.arch == arch
    assert backbone.out_channels_last
    if is_l2vit(leaf):
        assert (backbone.type, backbone.norm_cfg.type) == ('L2ViT', 'BN')
        assert url == (
            'https://github.com/ChuanyangZheng/L2ViT/releases/download/v1.0/'
            f'L2ViT-{L2VIT_FILES[arch]}-checkpoint-best-ema.pth'
        )
        last = model.backbone.stages[3][-1]
        experiment = leaf.split('/')[1].replace(f'_{arch}_', '_{}_')
        rate = L2VIT_DROP_PATH[experiment][arch]
    else:
        assert (backbone.type, backbone.norm_cfg.type) == ('RAVLT', 'SyncBN')
        assert url.endswith(f'/RAVLT_{arch.upper()}.pth')
        last = model.backbone.layers[3].blocks[-1]
        rate = DROP_PATH[arch]
    assert last.drop_path.drop_prob == pytest.approx(rate)


def read(leaf):
    """The config ``leaf``, such as 'mmdet/mask_rcnn_ravlt_t_1x', to be changed freely.

    Its default scope is MMEngine's from now on.
    """
    cfg = copy.deepcopy(_read(leaf))
    init_default_scope(cfg.default_scope)
    return cfg


@functools.cache
def _read(leaf):
    return Config.fromfile(config_path(f'{leaf}.py'))


def build(cfg, device='meta'):
    """The model of ``cfg``, as MMEngine's Runner builds it."""
    init_default_scope(cfg.default_scope)
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with torch.device(device):
        return MODELS.build(model)


@functools.cache
def built(leaf):
    """The model of ``leaf``, on the meta device; tests share it and only look at it."""
    return build(read(leaf))


def build_optimizer(leaf):
    """The optimizer, and its settings of each parameter by name."""
    cfg, model = read(leaf), built(leaf)
    adapt_to_device(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    return wrapper.optimizer, {
        name: groups[id(parameter)] for name, parameter in model.named_parameters()
    }


def norm_parameters(leaf):
    """Names of the parameters of all norm layers, batch and layer norms."""
    return {
        f'{name}.{own}'
        for name, module in built(leaf).named_modules()
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm))
        for own, _ in module.named_parameters(recurse=False)
    }


def learning_rates(cfg, per_epoch=1):
    """The learning rate of each iteration.

    Args:
        cfg (Config): whole config.
        per_epoch (int): iterations of an epoch, where the loop counts epochs.
    """
    loop = cfg.train_cfg
    total = loop.get('max_iters') or loop.max_epochs * per_epoch
    return _learning_rates(
        cfg.optim_wrapper.optimizer.lr,
        json.dumps(cfg.param_scheduler),
        total,
        per_epoch,
    )


@functools.cache
def _learning_rates(lr, schedulers, total, per_epoch):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    built = []
    for settings in json.loads(schedulers):  # text, as the cache needs a key
        if settings.get('convert_to_iter_based'):
            settings['epoch_length'] = per_epoch
        built.append(PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **settings)))
    rates = []
    optimizer.step()
    for iteration in range(total):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in built:
            if not scheduler.by_epoch or (iteration + 1) % per_epoch == 0:
                scheduler.step()
    return rates


def train_step(cfg, data):
    """One forward and backward pass of the built config on a CPU.

    Returns:
        The model, with gradients, and the losses by name.
    """
    cfg.model.backbone.init_cfg = None
    adapt_to_device(cfg)
    with quick_init():
        model = build(cfg, 'cpu').train()
        model.init_weights()
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    loss, logged = model.parse_losses(losses)
    loss.backward()
    return model, logged


def is_finite(gradient):
    """Whether all of it is, seen by the sum, which is fast."""
    return bool(gradient.sum().isfinite())
