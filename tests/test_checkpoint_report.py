"""Weights of another size or model are refused; what is odd in a file is reported."""

import logging

import pytest
import torch

from mmravlt.checkpoint import (
    Size,
    WrongWeightsError,
    read_contents,
    remap,
)
from mmravlt.models import RAVLT
from tests.release_weights import (
    CLASSIFIER,
    DETECTOR,
    backbone,
    meta,
    model_name,
    released_file,
)

# --- sizes ---


@pytest.mark.parametrize(
    ('dims', 'depths', 'words'),
    [
        ((64, 128, 320, 512), (3, 5, 9, 3), 'RAVLT-S'),
        ((64, 128), (2, 2), 'RAVLT-T (stages 1 to 2)'),
        ((96,), (4,), 'RAVLT-B or RAVLT-L (stage 1)'),
        # as L2ViT-T has, which is another family
        ((96, 192), (2, 2), 'RAVLT with embed_dims (96, 192) and depths (2, 2)'),
        ((8, 16), (1, 2), 'RAVLT with embed_dims (8, 16) and depths (1, 2)'),
        (
            (64, 128, 256, 512),
            (2, 2, 6, 3),
            'RAVLT with embed_dims (64, 128, 256, 512) and depths (2, 2, 6, 3)',
        ),
    ],
)
def test_a_size_is_called_by_its_variant(dims, depths, words):
    assert str(Size(dims, depths)) == words


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize(
    ('file', 'model'),
    [
        *('ts', 'st', 'tb', 'bl', 'lt'),
        *(('l2vit_t', 'l2vit_s'), ('l2vit_s', 'l2vit_t'), ('l2vit_b', 'l2vit_t')),
        *(('t', 'l2vit_t'), ('l2vit_t', 't'), ('b', 'l2vit_b')),
    ],
)
def test_another_size_or_family_is_refused_and_both_are_named(file, model, prefix):
    contents = read_contents(released_file('classifier', file, 'meta'))
    with pytest.raises(WrongWeightsError) as caught:
        remap(contents, backbone(model, prefix), 'RAVLT.pth')
    message = str(caught.value)
    assert message.startswith(
        f'the weights of RAVLT.pth are of {model_name(file)}, but this model is '
        f'{model_name(model)}: '
    )
    assert '\n' not in message


def test_a_size_of_ones_own_is_described_by_its_numbers():
    arch = {'embed_dims': (8, 16, 24, 32), 'depths': (1,) * 4, 'num_heads': (1,) * 4}
    with torch.device('meta'):
        own = {n: tuple(v.shape) for n, v in RAVLT(arch).state_dict().items()}
    with pytest.raises(
        WrongWeightsError,
        match=r'RAVLT with embed_dims \(8, 16, 24, 32\) and depths \(1, 1, 1, 1\)',
    ):
        remap(read_contents(CLASSIFIER), own)


# --- weights of other models ---

RESNET = meta({'conv1.weight': (64, 3, 7, 7), 'bn1.bias': (64,), 'fc.bias': (1000,)})
# Of a Swin with the channels of RAVLT-B, one name and shape is the same.
SWIN = meta(
    {
        'patch_embed.proj.weight': (96, 3, 4, 4),
        'layers.0.blocks.0.attn.proj.bias': (96,),
        'layers.0.blocks.0.norm1.weight': (96,),
    }
)
HEADS = {n: v for n, v in DETECTOR.items() if not n.startswith('backbone.')}
WHOLE = {n: tuple(v.shape) for n, v in DETECTOR.items() if 'RoPE' not in n}


@pytest.mark.parametrize(
    ('weights', 'expected'),
    [
        (RESNET, backbone('b')),
        (RESNET, WHOLE),
        (SWIN, backbone('b')),
        (HEADS, backbone('t')),
        ({**HEADS, **{f'backbone.{n}': v for n, v in RESNET.items()}}, WHOLE),
    ],
    ids=['ResNet', 'ResNet in detector', 'Swin', 'heads', 'ResNet detector'],
)
def test_weights_without_a_ravlt_are_refused(weights, expected):
    with pytest.raises(WrongWeightsError) as caught:
        remap(read_contents(weights), expected, 'file.pth')
    message = str(caught.value)
    first = next(iter(weights)).split('.')[0]
    assert 'nothing in file.pth for this RAVLT-' in message
    assert f'begin with {first}' in message and '\n' not in message


def test_heads_alone_are_loaded_and_the_backbone_is_called_new():
    loaded, report = remap(read_contents(HEADS), WHOLE)
    assert loaded.keys() == HEADS.keys()
    assert report.level == logging.WARNING
    assert 'new, not in the file: backbone (' in str(report)


# --- the report ---


def test_counters_and_frequencies_may_be_absent():
    weights = {
        name: value
        for name, value in DETECTOR.items()
        if not name.endswith(('num_batches_tracked', 'RoPE.angle'))
    }
    _, report = remap(read_contents(weights), WHOLE)
    assert not report.new and report.level == logging.INFO
    assert '\n' not in str(report)


def test_a_missing_weight_is_named_and_alarms():
    gone = 'layers.2.blocks.4.ffn.fc2.bias'
    weights = {name: v for name, v in DETECTOR.items() if name != f'backbone.{gone}'}
    loaded, report = remap(read_contents(weights), backbone())
    assert gone not in loaded
    assert report.level == logging.WARNING
    assert f'  new, not in the file: {gone} (1)' in str(report).splitlines()


def test_what_a_model_has_no_place_for_alarms_only_in_a_file_for_that_model():
    surplus = {**DETECTOR, 'extra_head.conv.weight': torch.empty(1, device='meta')}
    _, whole = remap(read_contents(surplus), WHOLE)
    assert whole.level == logging.WARNING
    assert str(whole).splitlines()[1:] == ['  not used of the file: extra_head (1)']
    _, part = remap(read_contents(surplus), backbone())
    assert part.level == logging.INFO
    assert 'extra_head (1)' in str(part)


def test_other_image_channels_are_named_with_both_shapes():
    name = 'patch_embed.proj.0.weight'
    loaded, report = remap(
        read_contents(CLASSIFIER), {**backbone(), name: (32, 4, 3, 3)}
    )
    assert name not in loaded
    assert f'    {name}: 32×3×3×3 in the file, 32×4×3×3 here' in str(report)


def test_many_other_shapes_do_not_flood_the_log():
    odd = {name: (*shape, 2) for name, shape in backbone().items() if 'ffn' in name}
    _, report = remap(read_contents(CLASSIFIER), {**backbone(), **odd})
    lines = str(report).splitlines()
    assert len(lines) < 70
    assert f'    and {len(odd) - 60} more' in lines
