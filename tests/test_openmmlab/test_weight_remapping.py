"""Weights arrive in models, or are refused, through the ways that MMEngine has."""

import logging
from collections import OrderedDict

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.runner import Runner, load_checkpoint, load_state_dict
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mmravlt.checkpoint import CheckpointError, MissingPrefixError, WrongWeightsError
from mmravlt.models import RAVLT, Backbone
from mmravlt.openmmlab import weight_remapping
from mmravlt.openmmlab.weight_remapping import needs_all_weights
from tests.release_weights import (
    FILES,
    fill,
    model_name,
    released_file,
)
from tests.test_openmmlab.helpers import (
    TINY,
    assert_arrived,
    assert_unchanged,
    build,
    values,
)


def test_a_backbone_with_fewer_stages_takes_a_whole_file(reports, save):
    checkpoint = released_file('classifier', 't')
    path = save(checkpoint)
    model = RAVLT('t', out_indices=(0, 1), init_cfg=None)
    load_checkpoint(model, path)
    own = {n: v for n, v in model.state_dict().items() if 'extra_norms' not in n}
    for name, value in own.items():
        assert torch.equal(value, checkpoint['model'][name])
    ((level, text),) = reports
    assert level == logging.INFO
    assert 'layers.1.downsample (7), layers.2 (' in text and 'layers.3 (' in text


@pytest.mark.parametrize('prefix', ['student.backbone.', 'encoder', 'a.b'])
def test_a_prefix_of_the_files_own_names_finds_the_backbone(prefix, save):
    source = RAVLT(TINY)
    root = prefix.rstrip('.') + '.'
    weights = {root + name: value for name, value in source.state_dict().items()}
    path = save({'state_dict': weights})
    init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    model = RAVLT(TINY, init_cfg=init_cfg)
    model.init_weights()
    assert_arrived(source.state_dict(), model)


def test_a_backbone_of_another_family_loads_as_in_mmengine():
    class Own(Backbone):
        arch_zoo = RAVLT.arch_zoo

        def __init__(self):
            super().__init__(
                **dict(arch='t', out_indices=(0,), in_channels=3, init_cfg=None),
                **dict(drop_path_rate=0.0, frozen_stages=-1, with_cp=False),
                **dict(norm_cfg={'type': 'BN'}, norm_eval=False),
            )
            self.conv = nn.Conv2d(3, 4, 1)

    source, model = Own(), Own()
    load_state_dict(model, source.state_dict())
    assert torch.equal(model.conv.weight, source.conv.weight)


def test_testing_refuses_weights_of_a_gate_that_the_model_does_not_have():
    released = RAVLT(TINY).state_dict()
    model = RAVLT(TINY, output_augmentation=False)
    load_state_dict(model, released)
    with needs_all_weights(), pytest.raises(WrongWeightsError, match='has a gate, and'):
        load_state_dict(model, released)


def test_testing_refuses_weights_of_another_model_of_any_kind():
    def net(width):
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))

    own, other = net(4).state_dict(), net(5).state_dict()
    with needs_all_weights():
        load_state_dict(net(4), {f'module.{n}': v for n, v in own.items()})
        with pytest.raises(WrongWeightsError, match='4 of its parameters, such as 0.w'):
            load_state_dict(net(4), other)


def test_a_prefix_that_no_name_has_is_named(save):
    path = save(released_file('mask_rcnn', 't'))
    init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': 'student.'}
    with pytest.raises(MissingPrefixError) as caught:
        RAVLT('t', init_cfg=init_cfg).init_weights()
    assert str(caught.value) == (
        f"{path} has no weights under 'student.'; its names begin with backbone, "
        f'neck, rpn_head, roi_head'
    )


def test_channels_last_weights_arrive(reports):
    source = RAVLT(TINY)
    weights = {
        name: value.contiguous(memory_format=torch.channels_last)
        if value.ndim == 4
        else value
        for name, value in source.state_dict().items()
    }
    model = RAVLT(TINY)
    load_state_dict(model, weights)
    assert_arrived(source.state_dict(), model)


# --- refusals ---


def foreign_resnet():
    shapes = {'conv1.weight': (64, 3, 7, 7), 'layer1.0.conv1.weight': (64, 64, 1, 1)}
    return {'state_dict': fill(shapes)}


def wrong_rope():
    checkpoint = released_file('classifier', 't')
    checkpoint['model']['layers.3.RoPE.angle'] *= 1.1
    return checkpoint


REFUSED = {
    'size': (
        lambda: released_file('classifier', 's'),
        'are of RAVLT-S, but this model is RAVLT-T: ',
    ),
    'ResNet': (
        foreign_resnet,
        'for this RAVLT-T model (its names begin with conv1, layer1)',
    ),
    'RoPE': (wrong_rope, 'layers.3.RoPE.angle'),
    'empty': (dict, 'holds no weights'),
}


@pytest.mark.parametrize('how', ['pretrained', 'load_checkpoint'])
@pytest.mark.parametrize('case', REFUSED)
def test_weights_of_another_model_are_refused_and_change_nothing(
    case, how, save, reports
):
    make, sentence = REFUSED[case]
    path = save(make())
    model = RAVLT('t', init_cfg={'type': 'Pretrained', 'checkpoint': path})
    before = values(model)
    with pytest.raises(WrongWeightsError) as caught:
        model.init_weights() if how == 'pretrained' else load_checkpoint(model, path)
    message = str(caught.value)
    assert sentence in message and '\n' not in message
    assert (path in message) != (case == 'empty')
    assert isinstance(caught.value, CheckpointError)
    assert_unchanged(model, before)
    assert not reports


@pytest.mark.parametrize(
    ('config', 'variant'),
    [
        ('mmdet/mask_rcnn_ravlt_s_1x.py', 't'),
        ('mmdet/mask_rcnn_ravlt_s_1x.py', 'l2vit_s'),
        ('mmdet/mask_rcnn_l2vit_t_1x.py', 't'),
    ],
)
def test_a_detector_refuses_the_file_of_another_size_or_family(config, variant, save):
    path = save(released_file('mask_rcnn', variant))
    model = build(config)
    before = values(model)
    theirs, ours = model_name(variant), model_name(FILES[config][1])
    with pytest.raises(
        WrongWeightsError, match=f'of {theirs}, but this model is {ours}: '
    ):
        load_checkpoint(model, path)
    assert_unchanged(model, before)


@pytest.mark.parametrize('change', ['missing', 'surplus', 'shape'])
def test_strict_loading_refuses_all_but_an_exact_match(change, reports):
    weights = RAVLT(TINY).state_dict()
    model = RAVLT(TINY)
    load_state_dict(model, weights, strict=True)
    assert_arrived(weights, model)
    if change == 'missing':
        del weights['patch_embed.proj.0.bias']
    elif change == 'surplus':
        weights['more.weight'] = torch.ones(1)
    else:
        weights['patch_embed.proj.0.weight'] = torch.ones(4, 4, 3, 3)
    model = RAVLT(TINY)
    before = values(model)
    with pytest.raises(RuntimeError, match='exact match'):
        load_state_dict(model, weights, strict=True)
    assert_unchanged(model, before)


# --- other models ---


class Student(nn.Module):
    """A RAVLT that is not the backbone of the model at hand."""

    def __init__(self):
        super().__init__()
        self.student = nn.ModuleDict({'backbone': RAVLT(TINY)})


@pytest.mark.parametrize('model', [nn.Linear(2, 2), Student()], ids=['none', 'nested'])
@pytest.mark.parametrize('strict', [True, False])
def test_models_without_a_ravlt_backbone_are_loaded_as_before(
    model, strict, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        weight_remapping.load_state_dict,
        'before_mmravlt',
        lambda *args: calls.append(args),
    )
    weights, logger = OrderedDict(weight=torch.ones(2, 2)), logging.getLogger('x')
    mmengine_checkpoint.load_state_dict(model, weights, strict, logger)
    ((got_model, got_weights, *rest),) = calls
    assert got_model is model and got_weights is weights and rest == [strict, logger]


def test_installing_again_keeps_the_original():
    before = mmengine_checkpoint.load_state_dict
    original = before.before_mmravlt
    weight_remapping.install()
    assert mmengine_checkpoint.load_state_dict is before
    assert before.before_mmravlt is original is not before


# --- in a training ---


class Classifier(BaseModel):
    """A RAVLT and a head."""

    def __init__(self):
        super().__init__(ImgDataPreprocessor())
        self.backbone = RAVLT(TINY)
        self.head = nn.Linear(32, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(inputs) if isinstance(inputs, list) else inputs
        logits = self.head(self.backbone(x)[-1].mean((2, 3)))
        return {'loss': logits.square().mean()} if mode == 'loss' else [logits]


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {'inputs': torch.randn(3, 32, 32, generator=generator)}


def make_runner(work_dir, epochs, **kwargs):
    return Runner(
        model=Classifier(),
        work_dir=str(work_dir),
        train_dataloader={
            'dataset': Images(),
            'batch_size': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': default_collate,
        },
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        custom_hooks=[{'type': 'EMAHook', 'momentum': 0.3, 'update_buffers': True}],
        experiment_name=f'{work_dir.name}_{epochs}',
        log_level='ERROR',
        **kwargs,
    )


def averaged_model(runner):
    (hook,) = (h for h in runner.hooks if isinstance(h, EMAHook))
    return hook.ema_model.module


def test_load_from_fills_the_model_and_its_average_and_reports_once(
    tmp_path, save, reports
):
    source = Classifier().state_dict()
    plain = save({f'module.{n}': v for n, v in source.items()})
    runner = make_runner(tmp_path, 1, load_from=plain)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert_arrived(source, runner.model)
    assert_arrived(source, averaged_model(runner))
    assert len(reports) == 1


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(tmp_path, reports):
    torch.manual_seed(0)
    whole = make_runner(tmp_path / 'whole', 2)
    whole.train()
    torch.manual_seed(0)
    make_runner(tmp_path / 'first', 1).train()
    path = tmp_path / 'first/epoch_1.pth'
    second = make_runner(tmp_path / 'second', 2, load_from=str(path), resume=True)
    second.train()
    assert_unchanged(second.model, values(whole.model))
    assert_unchanged(averaged_model(second), values(averaged_model(whole)))
    ((_, text),) = reports
    assert f'{path} (RAVLT with embed_dims (8, 16, 24, 32) ' in text
    assert (
        "the raw weights of 'ema_state_dict', not the moving average (EMA) of" in text
    )

    # Evaluated alone, the file gives the average.
    reports.clear()
    model = Classifier()
    checkpoint = load_checkpoint(model, str(path))
    assert not torch.equal(
        checkpoint['state_dict']['head.weight'],
        checkpoint['ema_state_dict']['module.head.weight'],
    )
    assert_arrived(checkpoint['state_dict'], model)
    ((_, text),) = reports
    assert (
        "the moving average (EMA) of 'state_dict', not the raw weights of "
        "'ema_state_dict'"
    ) in text
