"""Released files arrive in the models of this package's configs."""

import logging

import pytest
import torch
from mmengine.runner import load_checkpoint, load_state_dict

from mmravlt.models import RAVLT, L2ViT
from tests.release_weights import (
    FILES,
    fill,
    model_name,
    name_in_model,
    released_file,
    released_shapes,
)
from tests.test_openmmlab.helpers import assert_arrived, build, values


@pytest.mark.parametrize(
    'config',
    [
        'mmpretrain/ravlt_t_in1k.py',
        'mmdet/retinanet_ravlt_t_1x.py',
        'mmdet/mask_rcnn_ravlt_t_1x.py',
        'mmdet/cascade_mask_rcnn_ravlt_s_3x.py',
        'mmseg/semantic_fpn_ravlt_t_1x.py',
        'mmseg/upernet_ravlt_s_2x.py',
        'mmpretrain/l2vit_t_in1k.py',
        'mmdet/retinanet_l2vit_t_1x.py',
        'mmseg/upernet_l2vit_t_2x.py',
    ],
)
def test_every_value_of_a_released_file_arrives(config, reports, save):
    family, variant = FILES[config]
    checkpoint = released_file(family, variant)
    weights = next(checkpoint[k] for k in ('state_dict', 'model') if k in checkpoint)
    model = build(config)
    load_checkpoint(model, save(checkpoint))

    assert_arrived(weights, model, lambda name: name_in_model(name, family, variant))
    assert not any(v.isnan().any() for v in model.state_dict().values())
    ((level, text),) = reports
    count = sum(not n.endswith('num_batches_tracked') for n in model.state_dict())
    assert level == logging.INFO
    assert text.endswith(f'loaded {count} of the {count} weights of this model')
    assert f'weights.pth ({model_name(variant)} ' in text


@pytest.mark.parametrize('config', FILES)
def test_the_names_of_every_released_file_are_those_of_its_config(config, reports):
    checkpoint = released_file(*FILES[config], device='meta')
    model = build(config, device='meta')
    for stage in getattr(model.backbone, 'layers', ()):  # frequencies without values
        stage.RoPE._load_from_state_dict = lambda *args: None
    weights = next(checkpoint[k] for k in ('state_dict', 'model') if k in checkpoint)
    load_state_dict(model, weights, strict=True)  # else it is refused
    ((level, text),) = reports
    assert level == logging.INFO and '\n' not in text


# What belongs to the classes, in models of 3 classes: shapes there and in the file.
BOX_HEAD = {
    'fc_cls.weight': ((81, 1024), (4, 1024)),
    'fc_cls.bias': ((81,), (4,)),
    'fc_reg.weight': ((320, 1024), (12, 1024)),
    'fc_reg.bias': ((320,), (12,)),
}
MASK_HEAD = {
    'conv_logits.weight': ((80, 256, 1, 1), (3, 256, 1, 1)),
    'conv_logits.bias': ((80,), (3,)),
}


def below(head, names):
    return {f'{head}.{name}': shapes for name, shapes in names.items()}


CLASS_LAYERS = {
    'mmpretrain/ravlt_t_in1k.py': (
        {'model.head.num_classes': 3},
        below(
            'head.fc', {'weight': ((1000, 1024), (3, 1024)), 'bias': ((1000,), (3,))}
        ),
    ),
    'mmdet/retinanet_ravlt_t_1x.py': (
        {'model.bbox_head.num_classes': 3},
        below(
            'bbox_head.retina_cls',
            {'weight': ((720, 256, 3, 3), (27, 256, 3, 3)), 'bias': ((720,), (27,))},
        ),
    ),
    'mmdet/mask_rcnn_ravlt_t_1x.py': (
        {
            'model.roi_head.bbox_head.num_classes': 3,
            'model.roi_head.mask_head.num_classes': 3,
        },
        {
            **below('roi_head.bbox_head', BOX_HEAD),
            **below('roi_head.mask_head', MASK_HEAD),
        },
    ),
    'mmdet/cascade_mask_rcnn_ravlt_s_3x.py': (
        {
            **{f'model.roi_head.bbox_head.{i}.num_classes': 3 for i in range(3)},
            'model.roi_head.mask_head.num_classes': 3,
        },
        {
            f'roi_head.{head}.{i}.{name}': shapes
            for head, names in (('bbox_head', BOX_HEAD), ('mask_head', MASK_HEAD))
            for i in range(3)
            for name, shapes in names.items()
        },
    ),
    'mmseg/semantic_fpn_ravlt_t_1x.py': (
        {'model.decode_head.num_classes': 3},
        below(
            'decode_head.conv_seg',
            {'weight': ((150, 128, 1, 1), (3, 128, 1, 1)), 'bias': ((150,), (3,))},
        ),
    ),
}


@pytest.mark.parametrize('config', CLASS_LAYERS)
def test_other_classes_leave_exactly_the_class_layers_new(config, reports):
    changes, layers = CLASS_LAYERS[config]
    checkpoint = released_file(*FILES[config])
    model = build(config, **changes)
    load_state_dict(model, checkpoint.get('state_dict') or checkpoint['model'])

    untouched = {
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and value.isnan().all()
    }
    assert untouched == set(layers)
    ((level, text),) = reports
    assert level == logging.WARNING
    _, heading, *lines = text.splitlines()
    assert heading == '  new, of another shape in the file:'
    assert set(lines) == {
        f'    {name}: {"×".join(map(str, theirs))} in the file, '
        f'{"×".join(map(str, ours))} here'
        for name, (theirs, ours) in layers.items()
    }


# --- the backbone's initial weights ---


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone'])
@pytest.mark.parametrize('family', ['classifier', 'mask_rcnn', 'semantic_fpn'])
def test_pretrained_takes_any_released_file(family, prefix, reports, save):
    path = save(released_file(family, 't'))
    model = RAVLT(
        't', init_cfg={'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    )
    before = values(model)
    model.init_weights()
    after = model.state_dict()
    recorded = fill(released_shapes(family, 't'))
    is_release = family == 'classifier'
    for name, value in after.items():
        theirs = recorded.get(name if is_release else f'backbone.{name}')
        if is_release and name.startswith('extra_norms.'):
            assert torch.equal(value, before[name])
        else:
            assert torch.equal(value, theirs), name
    ((level, text),) = reports
    assert level == logging.INFO
    first, *rest = text.splitlines()
    assert first.startswith(f'{path} (RAVLT-T ')
    expected = []
    if is_release:
        assert first.endswith('loaded 282 of the 290 weights of this model')
        expected.append(
            '  new, as expected: extra_norms (8), the output norms that a classifier '
            'does not have'
        )
        if prefix is None:
            expected.append('  not used of the file: proj (2), norm (5), head (2)')
    elif prefix is None:
        heads = {
            'mask_rcnn': 'neck (16), rpn_head (6), roi_head (20)',
            'semantic_fpn': 'neck (16), decode_head (44)',
        }
        expected.append(f'  not used of the file: {heads[family]}')
    assert rest == expected


@pytest.mark.parametrize('family', ['classifier', 'mask_rcnn'])
def test_pretrained_l2vit_takes_any_file_of_its_size(family, reports, save):
    path = save(released_file(family, 'l2vit_t'))
    model = L2ViT('t', init_cfg={'type': 'Pretrained', 'checkpoint': path})
    before = values(model)
    model.init_weights()
    recorded = fill(released_shapes(family, 'l2vit_t'))
    for name, value in model.state_dict().items():
        if family != 'classifier':
            expected = recorded[f'backbone.{name}']
        elif name.startswith('norm3.'):
            expected = recorded[name.replace('norm3', 'norm')]
        else:
            expected = recorded.get(name, before[name])
        assert torch.equal(value, expected), name
    ((level, text),) = reports
    assert level == logging.INFO
    first, *rest = text.splitlines()
    assert first.startswith(f'{path} (L2ViT-T {"c" if family == "classifier" else "d"}')
    if family == 'classifier':
        assert rest == [
            '  new, as expected: norm0 (2), norm1 (2), norm2 (2), the output norms '
            'that a classifier does not have',
            '  not used of the file: head (2)',
        ]
    else:
        assert rest == [
            '  not used of the file: neck (16), rpn_head (6), roi_head (20)'
        ]
