"""What the tests of weights in MMEngine's models share."""

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmravlt import config_path

TINY = {
    'embed_dims': (8, 16, 24, 32),
    'depths': (1, 1, 1, 1),
    'num_heads': (1, 2, 3, 4),
}


def build(config, device='cpu', **changes):
    """The model of a config, its weights nothing but NaN."""
    cfg = Config.fromfile(config_path(config))
    cfg.merge_from_dict({'model.backbone.init_cfg': None, **changes})
    __import__(f'{cfg.default_scope}.models')
    with (
        torch.device('meta'),
        DefaultScope.overwrite_default_scope(cfg.default_scope),
    ):
        model = MODELS.build(cfg.model)
    if device == 'meta':
        return model
    model.to_empty(device=device)
    for value in model.state_dict().values():
        value.fill_(float('nan') if value.is_floating_point() else -1)
    return model


def assert_arrived(weights, model, rename=lambda name: name):
    """Every value of the file is in the model, where it belongs."""
    own = model.state_dict()
    for name, value in weights.items():
        if not name.endswith('RoPE.angle'):
            here = own[rename(name)]
            assert torch.equal(here.flatten(), value.flatten()), name


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_unchanged(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(torch.nan_to_num(after[name]), torch.nan_to_num(value)), name
