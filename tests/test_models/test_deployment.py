"""Saved and exported models compute what the model computes, at other sizes, too."""

import copy
import io

import onnxruntime
import pytest
import torch
from torch import nn

from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT, L2ViT

from ..golden_fill import filled, make_input, relative_error
from .test_ravlt import TINY

MODELS = {
    'release': lambda: RAVLT(TINY),
    'with_cp': lambda: RAVLT(TINY, with_cp=True),
    'without kv_augmentation': lambda: RAVLT(TINY, kv_augmentation=False),
    'linear kinds': lambda: RAVLT(
        TINY, attention=('linear', 'hydra', 'efficient', 'linear_angular')
    ),
    'other kinds': lambda: RAVLT(
        TINY, attention=('enhanced', 'focused', 'l2vit', 'rala')
    ),
    'l2vit': lambda: L2ViT(TINY),
}


class Flattening(nn.Module):
    """A backbone with a head that calls ``view`` on each map."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        maps = self.backbone(images)
        return [x.view(x.shape[0], x.shape[1], -1) for x in maps]


SHAPE, OTHER_SHAPE = (1, 3, 64, 96), (1, 3, 75, 109)
every_model = pytest.mark.parametrize('name', MODELS)


@every_model
def test_torchscript_saves_what_it_traced(name):
    model = Flattening(filled(MODELS[name]())).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, make_input(SHAPE)), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for shape in (SHAPE, OTHER_SHAPE):
        assert_equal(loaded(make_input(shape)), model, shape)


@every_model
def test_onnx_runtime_computes_the_same(name):
    model = Flattening(filled(MODELS[name]())).eval()
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (make_input(SHAPE),),
        file,
        input_names=['image'],
        dynamic_axes={'image': {2: 'height', 3: 'width'}},
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    for shape in (SHAPE, OTHER_SHAPE):
        outputs = session.run(None, {'image': make_input(shape).numpy()})
        assert_equal(outputs, model, shape)


def test_a_model_optimised_for_inference_can_be_traced():
    model = Flattening(filled(RAVLT(TINY))).eval()
    optimised = optimize_for_inference(copy.deepcopy(model))
    traced = torch.jit.trace(optimised, make_input(SHAPE))
    assert_equal(traced(make_input(SHAPE)), model, SHAPE)


def test_onnx_runtime_computes_a_model_optimised_for_inference():
    model = Flattening(filled(RAVLT(TINY))).eval()
    optimised = optimize_for_inference(copy.deepcopy(model))
    file = io.BytesIO()
    images = make_input(SHAPE)
    torch.onnx.export(
        optimised,
        (images,),
        file,
        input_names=['image'],
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    assert_equal(session.run(None, {'image': images.numpy()}), model, SHAPE)


def assert_equal(outputs, model, shape):
    with torch.no_grad():
        expected = model(make_input(shape))
    for output, reference in zip(outputs, expected, strict=True):
        assert relative_error(output, reference) <= 5e-5
