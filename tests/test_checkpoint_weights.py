"""What a file is, told from names and shapes; tensors have no values here."""

import collections
import logging
import re

import pytest
import torch

from mmravlt.checkpoint import (
    VARIANTS,
    Size,
    WrongWeightsError,
    read_contents,
    remap,
    unwrap,
)
from mmravlt.models import RAVLT, L2ViT
from tests.release_weights import (
    CLASSIFIER,
    DETECTOR,
    RECORDED,
    backbone,
    meta,
    model_name,
    name_in_model,
    released_shapes,
)

NEW_NORM = re.compile(r'norm[0-2]\.')  # of a detector with L2ViT


def number(value):
    return {'backbone.x.weight': torch.full((2, 2), value)}


MMCV = {'mmcv_version': '1.7.1', 'epoch': 12}
MMENGINE = {'mmengine_version': '0.10.7', 'epoch': 12}


def test_the_variants_are_those_of_the_backbone():
    sizes = {
        f'{model.__name__}-{name.upper()}': Size(
            arch['embed_dims'], arch['depths'], model.__name__
        )
        for model in (RAVLT, L2ViT)
        for name, arch in model.arch_zoo.items()
    }
    assert sizes == VARIANTS


@pytest.mark.parametrize(
    ('checkpoint', 'kind', 'layout'),
    [
        ({'model': CLASSIFIER, 'epoch': 3}, 'classifier', "in the release's layout"),
        ({'meta': MMCV, 'state_dict': DETECTOR}, 'detector', 'written by mmcv 1.7.1'),
        (
            {'meta': MMENGINE, 'state_dict': DETECTOR, 'message_hub': {}},
            'detector',
            'written by MMEngine 0.10.7',
        ),
        (
            {'meta': MMCV, 'state_dict': meta(released_shapes('upernet', 't'))},
            'segmentor',
            'written by mmcv 1.7.1',
        ),
        (CLASSIFIER, 'classifier', 'a state dict'),
        (meta(RECORDED['t']), 'backbone', 'a state dict'),
        ({f'module.{n}': v for n, v in DETECTOR.items()}, 'detector', 'a state dict'),
        ({f'student.{n}': v for n, v in DETECTOR.items()}, 'detector', 'a state dict'),
        ({f'encoder.{n}': v for n, v in CLASSIFIER.items()}, 'classifier', 'a state'),
    ],
    ids=[
        'release',
        'mmcv detector',
        'MMEngine detector',
        'mmcv segmentor',
        'plain classifier',
        'plain backbone',
        'several GPUs',
        'student',
        'encoder',
    ],
)
def test_each_layout_is_recognised_and_gives_the_backbone(checkpoint, kind, layout):
    contents = read_contents(checkpoint)
    assert str(contents).startswith(f'RAVLT-T {kind}, {layout}')
    loaded, report = remap(contents, backbone())
    assert {n: tuple(v.shape) for n, v in loaded.items() if 'RoPE' not in n} == {
        n: s for n, s in backbone().items() if n in loaded
    }
    assert {name.split('.')[0] for name in report.new} <= {'extra_norms'}


def test_release_gets_the_layout_of_mmengine():
    weights = {'patch_embed.weight': torch.ones(1)}
    release = {'model': weights, 'optimizer': {}, 'epoch': 3}
    unwrapped = unwrap(release)
    assert unwrapped == {'state_dict': weights}
    assert unwrapped['state_dict'] is weights
    assert unwrap(unwrapped) is unwrapped
    assert set(release) == {'model', 'optimizer', 'epoch'}


@pytest.mark.parametrize(
    'checkpoint',
    [
        {'state_dict': {}, 'meta': {}},
        {'state_dict': {}, 'model': {}},
        {'model': torch.ones(1)},
        {'model.weight': torch.ones(1)},
        collections.OrderedDict(weight=torch.ones(1)),
        torch.ones(1),
        {},
    ],
    ids=['mmengine', 'both', 'parameter', 'prefix', 'plain', 'tensor', 'empty'],
)
def test_other_layouts_are_left_alone(checkpoint):
    assert unwrap(checkpoint) is checkpoint


@pytest.mark.parametrize('family', ['classifier', 'mask_rcnn'])
@pytest.mark.parametrize('variant', ['t', 'l2vit_t'])
def test_renaming_twice_changes_nothing(family, variant):
    weights = meta(released_shapes(family, variant))
    once = read_contents(weights)
    twice = read_contents(once.weights)
    assert twice.weights.keys() == once.weights.keys()
    assert all(twice.weights[name] is value for name, value in once.weights.items())
    assert list(once.weights) == [
        name_in_model(name, family, variant) for name in weights
    ]


@pytest.mark.parametrize('variant', ['l2vit_t', 'l2vit_s', 'l2vit_b'])
@pytest.mark.parametrize('wrapped', [True, False])
def test_l2vit_is_recognised_and_gives_its_backbone(variant, wrapped):
    weights = meta(released_shapes('classifier', variant))
    contents = read_contents({'model': weights} if wrapped else weights)
    assert str(contents).startswith(f'{model_name(variant)} classifier, ')
    loaded, report = remap(contents, backbone(variant))
    expected = {n: v for n, v in backbone(variant).items() if not NEW_NORM.match(n)}
    assert {name: tuple(v.shape) for name, v in loaded.items()} == expected
    assert report.new == report.output_norms and len(report.new) == 6
    assert report.level == logging.INFO
    backbone_alone = read_contents(meta(RECORDED[variant]))
    assert str(backbone_alone) == f'{model_name(variant)} backbone, a state dict'
    loaded, report = remap(backbone_alone, backbone(variant, 'backbone.'))
    assert len(loaded) == len(RECORDED[variant]) and not report.new


def test_the_convolution_of_the_released_head_becomes_linear():
    head = torch.arange(6.0).view(2, 3, 1, 1)
    weights = {**CLASSIFIER, 'head.weight': head}
    got = read_contents(weights).weights['head.fc.weight']
    assert torch.equal(got, torch.tensor([[0.0, 1, 2], [3, 4, 5]]))


# --- moving averages: which of the two sets is taken ---

RAW, AVERAGE = 1.0, 2.0
TRAININGS = {
    'MMEngine': {
        'state_dict': number(AVERAGE),
        'ema_state_dict': {
            **{f'module.{n}': v for n, v in number(RAW).items()},
            'steps': torch.tensor(3),
        },
    },
    'mmcv': {
        'meta': MMCV,
        'state_dict': {
            **number(AVERAGE),
            'backbone.x.running_mean': torch.zeros(2),  # has no second value
            'ema_backbone_x_weight': torch.full((2, 2), RAW),
        },
    },
    'DeiT': {'model': number(RAW), 'model_ema': number(AVERAGE)},
    'timm': {'state_dict': number(RAW), 'state_dict_ema': number(AVERAGE)},
}


@pytest.mark.parametrize('averaged', [None, True, False])
@pytest.mark.parametrize('program', TRAININGS)
def test_of_a_training_with_an_average_the_wanted_weights_are_taken(program, averaged):
    default = AVERAGE if program in ('MMEngine', 'mmcv') else RAW
    expected = {None: default, True: AVERAGE, False: RAW}[averaged]
    contents = read_contents(TRAININGS[program], averaged)
    assert (contents.weights['backbone.x.weight'] == expected).all()
    names = {'backbone.x.weight'}
    if program == 'mmcv':
        names.add('backbone.x.running_mean')
    assert contents.weights.keys() == names
    words = ('moving average (EMA)', 'raw weights')
    mine, other = words if expected == AVERAGE else words[::-1]
    assert f'the {mine} of ' in str(contents) and f'not the {other} of' in str(contents)


def test_without_an_average_the_raw_weights_are_all_there_is():
    checkpoint = {'state_dict': number(RAW)}
    assert (
        read_contents(checkpoint, averaged=False).weights['backbone.x.weight'] == RAW
    ).all()
    with pytest.raises(WrongWeightsError, match='no moving average'):
        read_contents(checkpoint, averaged=True)


@pytest.mark.parametrize(
    'checkpoint', [{}, torch.ones(1), None, {'state_dict': {}}, {'epoch': 3}], ids=repr
)
def test_what_holds_no_weights_is_refused(checkpoint):
    with pytest.raises(WrongWeightsError, match='holds no weights'):
        read_contents(checkpoint)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda w: {'model_state_dict': w, 'optimizer_state_dict': {'state': {}}},
        lambda w: {'net': w, 'rng_state': torch.ones(3)},
        lambda w: {'params': w, 'epoch': 3},
        lambda w: {'state': {'model': w, 'step': 1}},
        lambda w: {'weights': w, 'weights_ema': number(AVERAGE)},
        lambda w: {'network': {f'module.{n}': v for n, v in w.items()}},
        lambda w: {f'_orig_mod.module.{n}': v for n, v in w.items()},
        lambda w: {f'module._orig_mod.{n}': v for n, v in w.items()},
        lambda w: {
            n.replace('backbone.', 'backbone._orig_mod.'): v for n, v in w.items()
        },
        lambda w: {
            n.replace('.x.', '.x._fsdp_wrapped_module._checkpoint_wrapped_module.'): v
            for n, v in w.items()
        },
    ],
)
def test_weights_are_found_under_any_key_and_what_wrappers_name_is_taken_out(wrap):
    contents = read_contents(wrap(number(RAW)))
    assert contents.weights.keys() == number(RAW).keys()
    assert (contents.weights['backbone.x.weight'] == RAW).all()


def test_several_sets_of_weights_are_refused():
    with pytest.raises(WrongWeightsError, match="each of 'generator', 'critic'"):
        read_contents({'generator': number(RAW), 'critic': number(AVERAGE)})


def test_of_several_sets_of_weights_that_with_a_known_backbone_is_taken():
    contents = read_contents({'head': number(RAW), 'detector': dict(DETECTOR)})
    assert contents.weights.keys() == DETECTOR.keys()


def test_two_backbones_in_unknown_places_are_refused():
    weights = {
        f'{who}.{n}': v for who in ('student', 'teacher') for n, v in DETECTOR.items()
    }
    with pytest.raises(WrongWeightsError, match=r"'student\.backbone\.' and 'teacher"):
        read_contents(weights)
