"""Heads get maps that they can call ``view`` on, unless they ask for channels_last."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT, L2ViT

from ..golden_fill import filled, make_input, relative_error
from .test_deployment import Flattening
from .test_ravlt import TINY

BACKBONES = {
    'RAVLT': lambda **options: RAVLT(TINY, **options),
    'RAVLT without output norms': lambda **options: RAVLT(
        TINY, output_norm=False, **options
    ),
    'L2ViT': lambda **options: L2ViT(TINY, **options),
}
SHAPE = (2, 3, 72, 104)
every_backbone = pytest.mark.parametrize('name', BACKBONES)


@every_backbone
def test_a_head_that_calls_view_trains_and_predicts(name):
    model = Flattening(filled(BACKBONES[name]()))
    sum(out.sum() for out in model(make_input(SHAPE))).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert len(model.eval()(make_input(SHAPE))) == 4


# All images at once; one image at a time, by groups of rows.
@pytest.mark.parametrize('memory_budget', [None, 0.01])
@pytest.mark.parametrize('name', ['RAVLT', 'RAVLT without output norms'])
def test_a_head_that_calls_view_predicts_with_an_optimised_backbone(
    name, memory_budget
):
    model = Flattening(filled(BACKBONES[name]().eval()))
    with torch.no_grad():
        expected = model(make_input(SHAPE))
    outputs = optimize_for_inference(model, memory_budget)(make_input(SHAPE))
    for output, value in zip(outputs, expected, strict=True):
        assert relative_error(output, value) <= 1e-5


@pytest.mark.parametrize('memory_budget', [None, 0.01])
@every_backbone
def test_maps_are_channels_last_where_that_is_asked_for(name, memory_budget):
    model = filled(BACKBONES[name](out_channels_last=True).eval())
    twin = filled(BACKBONES[name]().eval())
    with torch.no_grad():
        results = [model(make_input(SHAPE)), twin(make_input(SHAPE))]
    if isinstance(model, RAVLT):
        model = optimize_for_inference(model, memory_budget)
        results.insert(0, model(make_input(SHAPE)))
    *others, expected = results
    for outputs in others:
        for output, value in zip(outputs, expected, strict=True):
            assert output.is_contiguous(memory_format=torch.channels_last)
            assert value.is_contiguous()
            assert relative_error(output, value) <= 1e-5


@pytest.mark.parametrize('backbone', [RAVLT, L2ViT])
@pytest.mark.parametrize('value', [None, 1, 'channels_last'])
def test_other_values_of_out_channels_last_are_refused(backbone, value):
    message = f'out_channels_last is {value!r}; give True or False.'
    with pytest.raises(ValueError, match=message):
        backbone(TINY, out_channels_last=value)


def build(library, **model):
    backbone = dict(type='RAVLT', arch=TINY)
    with DefaultScope.overwrite_default_scope(library):
        return MODELS.build(ConfigDict(backbone=backbone, **model))


def test_centernet_trains_and_predicts():
    model = build(
        'mmdet',
        type='CenterNet',
        neck=dict(
            type='CTResNetNeck',
            in_channels=32,
            num_deconv_filters=(16, 8, 8),
            num_deconv_kernels=(4, 4, 4),
            use_dcn=False,
        ),
        bbox_head=dict(
            type='CenterNetHead', num_classes=2, in_channels=8, feat_channels=8
        ),
        test_cfg=dict(topk=10, local_maximum_kernel=3, max_per_img=10),
    )
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(64, 96),
            ori_shape=(64, 96),
            batch_input_shape=(64, 96),
            scale_factor=(1.0, 1.0),
            border=[0, 64, 0, 96],
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 40, 48]]), labels=torch.tensor([1])
    )
    losses = model(make_input((1, 3, 64, 96)), [sample], mode='loss')
    sum(losses.values()).backward()
    with torch.no_grad():
        (result,) = model.eval()(make_input((1, 3, 64, 96)), [sample], mode='predict')
    assert len(result.pred_instances) == 10


def test_dmnet_trains_and_predicts():
    model = build(
        'mmseg',
        type='EncoderDecoder',
        decode_head=dict(
            type='DMHead',
            in_channels=32,
            in_index=3,
            channels=8,
            num_classes=2,
            norm_cfg=dict(type='BN'),
        ),
        test_cfg=dict(mode='whole'),
    )
    sample = SegDataSample(
        metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96), pad_shape=(64, 96)),
        gt_sem_seg=PixelData(data=torch.ones(1, 64, 96, dtype=torch.long)),
    )
    losses = model(make_input((2, 3, 64, 96)), [sample, sample], mode='loss')
    losses['decode.loss_ce'].backward()
    with torch.no_grad():
        results = model.eval()(make_input((1, 3, 64, 96)), [sample], mode='predict')
    assert results[0].pred_sem_seg.data.shape == (1, 64, 96)
