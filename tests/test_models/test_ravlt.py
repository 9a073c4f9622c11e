"""The backbone computes what the release computes, and trains as users expect."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peer import ReleaseFormulas
from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT
from mmravlt.models.layers import residual_conv
from mmravlt.ops import rope2d_angles
from mmravlt.registry import ATTENTIONS

from ..golden_fill import filled, make_input, relative_error

DATA = Path(__file__).parents[1] / 'data'
GOLDEN = sorted(DATA.glob('backbone_*.npz'))
RELEASE_KEYS = json.loads((DATA / 'release_backbone_keys.json').read_text())
KINDS = {'l': 'rala', 'v': 'softmax'}
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))


def release_layout(name):
    return tuple(KINDS[letter] for letter in name)


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_outputs_and_gradients_equal_the_release(path):
    golden = np.load(path)
    meta = json.loads(str(golden['meta']))
    model = RAVLT(meta['arch'], attention=release_layout(meta['attention'])).eval()
    filled(model, meta['seed'])
    image = make_input(meta['shape'], meta['seed']).requires_grad_()
    outputs = model(image)
    assert len(outputs) == 4
    for i, output in enumerate(outputs):
        assert relative_error(output.detach(), golden[f'out{i}']) <= 1e-5

    if 'grad_input' not in golden:
        return
    loss = sum(
        (output * make_input(output.shape, meta['seed'] + 7 + i)).sum()
        for i, output in enumerate(outputs)
    )
    loss.backward()
    assert relative_error(image.grad, golden['grad_input']) <= 1e-5
    names = golden['grad_norm_keys'].tolist()
    assert set(names) == {name for name, _ in model.named_parameters()}
    norms = [model.get_parameter(name).grad.double().norm() for name in names]
    for norm, expected in zip(norms, golden['grad_norms'], strict=True):
        assert abs(norm - expected) <= 1e-5 * expected


def test_some_golden_file_covers_each_layout_and_the_gradients():
    metas = [json.loads(str(np.load(path)['meta'])) for path in GOLDEN]
    assert {m['attention'] for m in metas} == {'llvv', 'llll'}
    assert {m['arch'] for m in metas} == set('tsbl')
    assert any('grad_input' in np.load(path) for path in GOLDEN)


@pytest.mark.parametrize('arch', 'tsbl')
def test_released_state_dict_loads_with_no_missing_and_no_unexpected_key(arch):
    model = RAVLT(arch)
    released = {}
    for name, shape in RELEASE_KEYS[arch].items():
        released[name] = torch.zeros(shape)
        if name.endswith('RoPE.angle'):
            released[name] = rope2d_angles(2 * shape[0])
    model.load_state_dict(released, strict=True)
    assert set(released) - set(model.state_dict()) == {
        f'layers.{i}.RoPE.angle' for i in range(4)
    }
    for name, value in model.state_dict().items():
        assert value.shape == torch.Size(RELEASE_KEYS[arch][name])


@pytest.mark.parametrize('strict', [True, False])
def test_weights_with_other_rope_frequencies_are_refused(strict):
    model = RAVLT('t')
    wrong = model.state_dict()
    wrong['layers.2.RoPE.angle'] = torch.arange(32) / 32
    with pytest.raises(RuntimeError, match='layers.2.RoPE.angle.*other RoPE'):
        model.load_state_dict(wrong, strict=strict)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_rope_frequencies_stored_in_another_precision_are_accepted(dtype):
    model = RAVLT('t')
    state = model.state_dict()
    state['layers.0.RoPE.angle'] = rope2d_angles(64).to(dtype)
    model.load_state_dict(state)


# Sizes of the released classifiers without what follows stage 4 (1×1 convolution
# to 1024 with bias, BN, 1000 classes), plus the four output norms.
@pytest.mark.parametrize(
    'arch,millions', [('t', 14.90), ('s', 25.59), ('b', 48.24), ('l', 95.24)]
)
def test_parameter_count_is_the_release_count(arch, millions):
    with torch.device('meta'):
        model = RAVLT(arch)
    dims = RAVLT.arch_zoo[arch]['embed_dims']
    classifier = (dims[3] * 1024 + 1024) + 2 * 1024 + (1024 * 1000 + 1000)
    count = sum(p.numel() for p in model.parameters()) - 2 * sum(dims) + classifier
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize('out_indices', [(3,), (0, 2)])
def test_without_output_norm_the_maps_are_those_before_it(out_indices):
    normed = filled(RAVLT(TINY, out_indices=out_indices).eval())
    plain = RAVLT(TINY, out_indices=out_indices, output_norm=False, frozen_stages=1)
    names = {n for n in normed.state_dict() if not n.startswith('extra_norms')}
    assert set(plain.state_dict()) == names
    plain.load_state_dict(normed.state_dict(), strict=False)
    image = make_input((1, 3, 64, 64))
    with torch.no_grad():
        expected, outputs = normed(image), plain.eval()(image)
    assert len(outputs) == len(out_indices)
    for i, output, norm in zip(out_indices, outputs, expected, strict=True):
        torch.testing.assert_close(normed.extra_norms[str(i)](output), norm)


def test_autocast_does_not_round_the_identity_around_a_convolution():
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    nn.init.uniform_(conv.weight, 0, 1e-4)
    x = make_input((1, 8, 9, 9))
    with torch.autocast('cpu', torch.bfloat16):
        result = residual_conv(conv, x)
    assert relative_error(result - x, conv(x)) <= 1e-2


@pytest.mark.parametrize('conv', ['attn.qkvo', 'attn.proj', 'ffn.dwconv', 'ffn.fc2'])
@pytest.mark.parametrize('kind', ['forward_pre', 'forward', 'full_backward'])
def test_hooks_of_every_convolution_are_called(conv, kind):
    model = filled(RAVLT(TINY).eval())
    image = make_input((1, 3, 45, 62)).requires_grad_()
    expected = model(image)
    conv, called = model.layers[0].blocks[0].get_submodule(conv), []
    register = getattr(conv, f'register_{kind}_hook')
    register(lambda module, *_: called.append(module))
    outputs = model(image)
    sum(out.sum() for out in outputs).backward()
    assert called == [conv]
    for output, value in zip(outputs, expected, strict=True):
        assert relative_error(output, value) <= 1e-5


@pytest.mark.parametrize('layout', ['llvv', 'llll'])
def test_in_float64_the_release_is_computed_in_float64(layout, monkeypatch):
    monkeypatch.setitem(RAVLT.arch_zoo, 'tiny', TINY)
    model = filled(RAVLT(TINY, release_layout(layout))).double()
    peer = ReleaseFormulas('tiny', release_layout(layout)).double()
    peer.load_state_dict(model.state_dict())
    image = make_input((1, 3, 64, 96)).double()
    for mode in ('training', 'evaluation', 'optimised for inference'):
        for each in (model, peer):
            each.train(mode == 'training')
        if mode.startswith('optimised'):
            model = optimize_for_inference(model)
        with torch.no_grad():
            outputs = model(image)
            torch.set_default_dtype(torch.float64)  # of the peer's angles
            try:
                expected = peer(image)
            finally:
                torch.set_default_dtype(torch.float32)
        for output, reference in zip(outputs, expected, strict=True):
            assert relative_error(output, reference) <= 1e-12, mode


def test_tracing_a_model_leaves_no_symbols_behind():
    model = filled(RAVLT(TINY).eval()).double()
    image = make_input((1, 3, 72, 88)).double()
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        outputs = model(image)
        for output, other in zip(outputs, exported(image), strict=True):
            assert type(output) is torch.Tensor
            assert relative_error(other, output) <= 1e-12


def test_softmax_stages_never_store_a_token_by_token_matrix():
    model = RAVLT(TINY, attention=('softmax',) * 4)
    tokens = 32 * 32  # of stage 1
    largest = 0

    def record(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda x: x):
        model(torch.randn(1, 3, 128, 128))
    assert 0 < largest < tokens * tokens


@pytest.mark.parametrize('arch', 'tsbl')
def test_drop_path_grows_linearly_to_the_rate_of_the_variant(arch):
    with torch.device('meta'):
        model = RAVLT(arch)
    blocks = [block for stage in model.layers for block in stage.blocks]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    highest = {'t': 0.10, 's': 0.15, 'b': 0.40, 'l': 0.55}[arch]
    np.testing.assert_allclose(rates, np.linspace(0, highest, len(blocks)), atol=1e-7)


@pytest.mark.parametrize(
    'arch,scales', [('t', (1, 1, 1, 1)), ('b', (1, 1, 1e-6, 1e-6)), ('l', (1e-6,))]
)
def test_layer_scale_starts_at_the_value_of_the_variant(arch, scales):
    model = RAVLT(arch, out_indices=(len(scales) - 1,))
    for stage, scale in zip(model.layers, scales, strict=True):
        for block in stage.blocks:
            for gamma in (block.gamma_1, block.gamma_2):
                torch.testing.assert_close(gamma, torch.full_like(gamma, scale))


@pytest.mark.parametrize('value', [0.5, (1, 0.5, 0.25, 0)])
def test_layer_scale_can_be_chosen(value):
    model = RAVLT(TINY, layer_scale_init_values=value)
    expected = (value,) * 4 if isinstance(value, float) else value
    got = tuple(stage.blocks[0].gamma_1[0, 0].item() for stage in model.layers)
    assert got == expected


def test_convolutions_start_as_in_the_release():
    model = RAVLT('t')
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
    weights = model.layers[3].blocks[0].ffn.fc1.weight
    assert abs(weights.std().item() - 0.02) < 1e-3


def test_pretrained_weights_load_with_a_prefix(tmp_path):
    source = filled(RAVLT(TINY))
    weights = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    path = str(tmp_path / 'detector.pth')
    torch.save({'meta': {}, 'state_dict': {**weights, 'neck.x': torch.zeros(1)}}, path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = RAVLT(TINY, init_cfg=init_cfg)
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_released_classifier_file_initialises_all_but_the_output_norms(tmp_path):
    released = filled(RAVLT('t')).state_dict()
    weights = {k: v for k, v in released.items() if not k.startswith('extra_norms')}
    for i in range(4):
        weights[f'layers.{i}.RoPE.angle'] = rope2d_angles(64)
    classifier = {
        'proj.weight': torch.ones(1024, 512, 1, 1),
        'norm.bias': torch.ones(9),
    }
    path = str(tmp_path / 'RAVLT_T.pth')
    torch.save({'model': {**weights, **classifier}, 'epoch': 299}, path)
    model = RAVLT('t', init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    for name, value in model.named_parameters():
        if name.startswith('extra_norms'):
            assert torch.equal(value, torch.full_like(value, name.endswith('weight')))
        else:
            assert torch.equal(value, released[name]), name


def test_a_new_kind_of_attention_can_be_registered():
    softmax = ATTENTIONS.get('softmax')

    class Mean(softmax):
        def mix(self, q, k, v, table):
            return v.mean(-2, keepdim=True).expand_as(v)

    ATTENTIONS.register_module('mean', module=Mean)
    try:
        model = RAVLT(TINY, attention=('mean', 'rala', 'mean', 'softmax'))
        assert isinstance(model.layers[2].blocks[0].attn, Mean)
        assert len(model(torch.randn(2, 3, 32, 32))) == 4
    finally:
        ATTENTIONS.module_dict.pop('mean')


@pytest.mark.parametrize(
    'options,message',
    [
        (
            dict(arch={**TINY, 'num_heads': (1, 2, 5, 4)}),
            'RoPE needs a multiple',
        ),
        (dict(attention='x'), r"attention\[0\] is 'x'; give a name out of"),
        (dict(attention=('rala',) * 3), 'give a kind for all stages, or 4'),
        (dict(attention=3), 'attention is 3; give a kind'),
        (
            dict(attention=('rala', dict(kappa='relu'), 'rala', 'rala')),
            r"attention\[1\] is \{'kappa': 'relu'\}; give .* dict with one as its type",
        ),
        (
            dict(attention=dict(type='softmax', kappa='relu')),
            "that kind has no 'kappa'; it has .*'phi'",
        ),
        (
            dict(attention=dict(type='rala', with_cp=True)),
            "that kind has no 'with_cp'",
        ),
        (
            dict(attention=dict(type='rala', kv_augmentation='no')),
            "kv_augmentation is 'no'; give True or False",
        ),
        (
            dict(attention=dict(type='rala', kappa='softmax'), kappa='relu'),
            "kappa is 'relu', but 'softmax' in attention; leave one",
        ),
        (
            dict(attention=('rala', 'rala', 'rala', 'x')),
            "out of 'efficient', .*'softmax'",
        ),
        (dict(layer_scale_init_values='abcd'), "layer_scale_init_values is 'abcd'"),
        (dict(layer_scale_init_values=(1, 1)), 'layer_scale_init_values is'),
    ],
)
def test_wrong_values_of_its_own_options_get_a_readable_error(options, message):
    with pytest.raises(ValueError, match=message):
        RAVLT(**{'arch': TINY, **options})
