"""L2ViT computes what the release computes, and trains as users expect."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.models import LoRAModel
from torch import nn

from mmravlt import config_path, optimize_for_inference
from mmravlt.models import L2ViT
from mmravlt.models.backbones.l2vit import WindowAttention
from mmravlt.models.layers import from_windows, to_windows

from ..golden_fill import fill_state_dict, filled, make_input, relative_error

DATA = Path(__file__).parents[1] / 'data'
GOLDEN = sorted(DATA.glob('l2vit_backbone_*.npz'))
RELEASE_KEYS = json.loads((DATA / 'release_l2vit_backbone_keys.json').read_text())
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(2, 2, 3, 2), num_heads=(1, 2, 3, 4))


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_outputs_equal_the_release(path):
    golden = np.load(path)
    meta = json.loads(str(golden['meta']))
    model = filled(L2ViT(meta['arch']).eval(), meta['seed'])
    with torch.no_grad():
        outputs = model(make_input(meta['shape'], meta['seed']))
    assert len(outputs) == 4
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f'out{i}']) <= 1e-5


def test_logits_equal_the_release():
    golden = np.load(DATA / 'l2vit_classifier_t_2x3x64x64_seed0.npz')
    meta = json.loads(str(golden['meta']))
    cfg = Config.fromfile(config_path('mmpretrain/l2vit_t_in1k.py'))
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model).eval()
    ours = model.state_dict()

    def release_name(name):
        name = name.removeprefix('backbone.').replace('head.fc.', 'head.')
        return name.replace('norm3.', 'norm.') if name.startswith('norm3') else name

    released = {release_name(name): value for name, value in ours.items()}
    assert len(released) == len(ours)
    values = fill_state_dict(released, meta['seed'])
    for name, value in ours.items():
        if value.is_floating_point():
            value.copy_(values[release_name(name)])
    with torch.no_grad():
        logits = model(make_input(meta['shape'], meta['seed']))
    assert relative_error(logits, golden['out0']) <= 1e-5


@pytest.mark.parametrize('arch', 'tsb')
def test_names_and_shapes_are_those_of_the_released_weights(arch):
    with torch.device('meta'):
        model = L2ViT(arch)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == RELEASE_KEYS[arch]


@pytest.mark.parametrize('height,width', [(76, 110), (80, 112)])
def test_images_are_padded_with_zeros_at_the_right_and_the_bottom(height, width):
    """To a multiple of 4 first; later maps are padded after their normalisation."""
    model = filled(L2ViT(TINY, out_indices=(0,)).eval())
    image = make_input((1, 3, height - 3, width - 1))
    padded = F.pad(image, (0, 1, 0, 3))
    with torch.no_grad():
        assert torch.equal(model(image)[0], model(padded)[0])


@pytest.mark.parametrize(
    'height,width,size',
    [(7, 7, 7), (14, 21, 7), (8, 5, 7), (1, 1, 7), (19, 28, 7), (13, 30, 12)],
)
def test_tokens_attend_within_their_window_and_to_its_padding(height, width, size):
    attention = WindowAttention(12, 3, size).double()
    nn.init.normal_(attention.qkv.bias)  # what zeros become
    x = torch.randn(2, 12, height, width, dtype=torch.float64)
    rows, columns = -(-height // size), -(-width // size)
    whole = F.pad(x, (0, size * columns - width, 0, size * rows - height))
    expected = torch.empty_like(whole)
    for i in range(rows):
        for j in range(columns):
            top, left = size * i, size * j
            place = (..., slice(top, top + size), slice(left, left + size))
            tokens = whole[place].flatten(2).mT  # B, size², C
            qkv = F.linear(tokens, attention.qkv.weight, attention.qkv.bias)
            heads = [part.chunk(3, dim=2) for part in qkv.chunk(3, dim=2)]
            mixed = [
                (q @ k.mT / 2).softmax(-1) @ v  # 4 channels in a head
                for q, k, v in zip(*heads, strict=True)
            ]
            y = F.linear(torch.cat(mixed, 2), *attention.proj.parameters())
            expected[place] = y.mT.unflatten(2, (size, size))
    torch.testing.assert_close(attention(x), expected[..., :height, :width])


def test_windows_are_cut_row_by_row_and_joined_again():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    windows = to_windows(x, 2)
    assert windows.shape == (12, 3, 2, 2)
    assert torch.equal(windows[1], x[0, :, :2, 2:4])
    assert torch.equal(windows[3], x[0, :, 2:, :2])
    assert torch.equal(from_windows(windows, (4, 6)), x)


def test_without_output_norm_the_maps_are_those_before_it():
    normed = filled(L2ViT(TINY, out_indices=(1, 3)).eval())
    plain = L2ViT(TINY, out_indices=(1, 3), output_norm=False, frozen_stages=2).eval()
    plain.load_state_dict(
        {n: v for n, v in normed.state_dict().items() if not n.startswith('norm')}
    )
    image = make_input((1, 3, 64, 64))
    with torch.no_grad():
        for i, output, norm in zip((1, 3), plain(image), normed(image), strict=True):
            got = normed.get_submodule(f'norm{i}')(output)
            torch.testing.assert_close(got, norm)


def test_a_traced_model_gives_the_same_maps():
    model = filled(L2ViT(TINY).eval())
    image = make_input((1, 3, 72, 90))
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        for output, other in zip(model(image), exported(image), strict=True):
            assert relative_error(other, output) <= 1e-5


@pytest.mark.parametrize('with_cp', [False, True])
def test_a_compiler_takes_a_training_model_as_one_graph(with_cp):
    model = filled(L2ViT(TINY, with_cp=with_cp).train())
    compiled = torch.compile(copy.deepcopy(model), backend='eager', fullgraph=True)
    image = make_input((2, 3, 60, 40))
    for output, other in zip(model(image), compiled(image), strict=True):
        assert relative_error(other, output) <= 1e-5


def test_the_size_of_windows_reaches_every_local_block():
    model = L2ViT(TINY, window_size=12)
    sizes = [m.window_size for m in model.modules() if isinstance(m, WindowAttention)]
    assert sizes == [12] * 5


def test_linear_layers_can_be_adapted_by_lora():
    # it runs layers of its own on the input of those it finds
    model = LoRAModel(
        dict(type='L2ViT', arch=TINY), alpha=4, rank=2, targets=[dict(type='qkv')]
    ).eval()
    image = make_input((1, 3, 64, 48))
    with torch.no_grad():
        expected = model.module(image)
        for name, parameter in model.named_parameters():
            if 'lora_up' in name:
                parameter.fill_(0.1)
        changed = model(image)
    for output, other in zip(expected, changed, strict=True):
        assert other.shape == output.shape
        assert not torch.equal(other, output)


@pytest.mark.parametrize('arch,highest', [('t', 0.1), ('s', 0.2), ('b', 0.3)])
def test_drop_path_grows_linearly_to_the_rate_of_the_variant(arch, highest):
    with torch.device('meta'):
        model = L2ViT(arch)
    blocks = [block for stage in model.stages for block in stage]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    np.testing.assert_allclose(rates, np.linspace(0, highest, len(blocks)), atol=1e-7)


def test_layers_start_as_in_the_release():
    model = L2ViT('t', out_indices=(0,))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert not module.bias.any()
            assert module.weight.abs().max() <= 2
    assert model.stages[0][0].mlp.fc1.weight.std().item() == pytest.approx(
        0.02, rel=0.02
    )
    temperature = model.stages[0][1].attn.temperature
    torch.testing.assert_close(temperature, torch.full((3, 1, 1), 32**-0.5))


@pytest.mark.parametrize('holder', [lambda m: m, lambda m: nn.ModuleDict({'x': m})])
def test_optimising_for_inference_says_that_it_is_for_ravlt(holder):
    with pytest.raises(ValueError, match='holds no RAVLT, .*; leave it out'):
        optimize_for_inference(holder(L2ViT(TINY)))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='l'), "arch is 'l'; give one of 't', 's', 'b' or a dict"),
        (
            dict(arch={**TINY, 'layer_scale_init_values': 1}),
            r"unknown keys \['layer_scale_init_values'\]; .* if wanted, drop_path_rate",
        ),
        (
            dict(arch={**TINY, 'num_heads': (1, 2, 5, 4)}),
            '24 channels for 5 heads; give a multiple of the heads',
        ),
        (dict(window_size=0), 'window_size is 0; give a whole number from 1'),
        (dict(with_cp='selective'), "with_cp is 'selective'; give True or False"),
    ],
)
def test_wrong_values_of_its_own_options_get_a_readable_error(options, message):
    with pytest.raises(ValueError, match=message):
        L2ViT(**{'arch': TINY, **options})


def test_an_option_of_ravlt_alone_is_refused():
    with pytest.raises(TypeError, match='attention'):
        L2ViT('t', attention=('rala',) * 4)
