"""The backbone computes what the release computes, and trains as users expect."""

import copy
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

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


@pytest.mark.parametrize(
    'height,width', [(75, 109), (32, 32), (33, 64), (32, 256), (97, 40), (1, 1)]
)
@pytest.mark.parametrize('layout', ['llvv', 'llll', 'vvvv', 'vlvl'])
def test_any_size_gives_maps_rounded_up_at_each_stride(height, width, layout):
    model = RAVLT(TINY, attention=release_layout(layout)).eval()
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, height, width))
    for output, stride, channels in zip(
        outputs, (4, 8, 16, 32), TINY['embed_dims'], strict=True
    ):
        assert output.shape == (2, channels, -(-height // stride), -(-width // stride))
        assert output.isfinite().all()


@pytest.mark.parametrize('layout', ['llvv', 'llll'])
@pytest.mark.parametrize('height,width', [(75, 109), (64, 96), (32, 32)])
def test_batch_and_memory_format_do_not_change_the_result(height, width, layout):
    model = filled(RAVLT('t', attention=release_layout(layout)).eval())
    images = make_input((2, 3, height, width))
    with torch.no_grad():
        together = model(images)
        channels_last = model(images.contiguous(memory_format=torch.channels_last))
        apart = [model(image[None]) for image in images]
    for i, output in enumerate(together):
        assert relative_error(channels_last[i], output) <= 1e-6
        for b in range(2):
            assert relative_error(apart[b][i][0], output[b]) <= 1e-5


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3), (2,), (0, 1)])
def test_out_indices_choose_the_maps_and_leave_out_what_is_not_needed(out_indices):
    everything = filled(RAVLT('t').eval())
    some = RAVLT('t', out_indices=out_indices).eval()
    some.load_state_dict(everything.state_dict(), strict=False)
    image = make_input((1, 3, 64, 64))
    with torch.no_grad():
        all_outputs, outputs = everything(image), some(image)
    assert len(outputs) == len(out_indices)
    for i, output in zip(out_indices, outputs, strict=True):
        assert torch.equal(output, all_outputs[i])
    some.train()
    sum(output.sum() for output in some(make_input((2, 3, 64, 64)))).backward()
    assert all(p.grad is not None for p in some.parameters())


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


@pytest.mark.parametrize('arch', 'tsbl')
def test_every_parameter_gets_a_gradient_in_training(arch):
    model = RAVLT(arch, norm_cfg=dict(type='SyncBN')).train()
    for name, module in model.named_modules():
        if name.endswith('drop_path'):
            assert isinstance(module, nn.Identity) == name.startswith(
                'layers.0.blocks.0.'
            )
            module.train(False)  # a dropped branch has no gradient by design
    outputs = model(make_input((2, 3, 64, 96)))
    loss = sum((out * make_input(out.shape, i)).sum() for i, out in enumerate(outputs))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias before a batch norm in training has no effect by construction.
        if not is_bias_before_batch_norm(name):
            assert parameter.grad.abs().sum() > 0, name


def is_bias_before_batch_norm(name):
    stem = ('patch_embed.proj', 'downsample.reduction')
    return name.endswith('.bias') and any(part in name for part in stem)


@pytest.mark.parametrize('layout', ['llvv', 'llll'])
@pytest.mark.parametrize('with_cp', [True, 'selective'])
@pytest.mark.parametrize('autocast', [False, True])
def test_with_cp_changes_no_output_and_no_gradient(layout, with_cp, autocast):
    plain = RAVLT(TINY, release_layout(layout), drop_path_rate=0.5).train()
    recomputing = RAVLT(
        TINY, release_layout(layout), drop_path_rate=0.5, with_cp=with_cp
    )
    recomputing.load_state_dict(plain.state_dict())
    results = []
    for model in (plain, recomputing.train()):
        torch.manual_seed(3)  # the same branches are dropped
        image = make_input((2, 3, 45, 62)).requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            outputs = model(image)
        sum(out.square().sum() for out in outputs).backward()
        gradients = [p.grad for p in model.parameters()]
        results.append([*outputs, image.grad, *gradients, *model.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


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


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(norm, frozen_stages):
    model = RAVLT(TINY, norm_cfg=dict(type=norm), frozen_stages=frozen_stages)
    before = copy.deepcopy(model.state_dict())
    assert model.train() is model
    prefixes = ['patch_embed.'] if frozen_stages >= 0 else []
    for i in range(max(frozen_stages, 0)):
        prefixes += [f'layers.{i}.', f'extra_norms.{i}.']

    def is_frozen(name):
        return any(name.startswith(prefix) for prefix in prefixes)

    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != is_frozen(name), name
    for name, module in model.named_modules():
        assert module.training != is_frozen(name + '.'), name
    model(make_input((2, 3, 64, 64)))
    for name, value in model.named_buffers():
        if name.endswith('running_mean'):
            assert torch.equal(value, before[name]) == is_frozen(name), name


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval_fixes_batch_statistics_but_not_weights(norm, norm_eval):
    model = RAVLT(TINY, norm_cfg=dict(type=norm), norm_eval=norm_eval).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 4 + 3
    before = [m.running_mean.clone() for m in norms]
    sum(out.sum() for out in model(make_input((2, 3, 64, 64)))).backward()
    for module, mean in zip(norms, before, strict=True):
        assert module.training != norm_eval
        assert torch.equal(module.running_mean, mean) == norm_eval
        assert module.weight.grad is not None


def test_gradients_have_the_layout_of_their_parameters():
    """Otherwise DistributedDataParallel warns and copies them in each step.

    Pruning and FSDP, among others, take contiguous parameters only.
    """
    model = RAVLT(TINY)
    outputs = model(make_input((2, 3, 64, 64)))
    sum(out.square().sum() for out in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name
        assert parameter.is_contiguous(), name


@pytest.mark.parametrize('with_cp', [False, True])
def test_pytorchs_flop_counter_counts_a_training_step(with_cp):
    model = RAVLT(TINY, with_cp=with_cp)
    image = make_input((2, 3, 64, 64))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(image)
    with FlopCounterMode(display=False) as step:
        sum(out.square().sum() for out in model(image)).backward()
    assert step.get_total_flops() > 2 * forward.get_total_flops() > 0


def test_float64_is_computed_in_float64():
    model = filled(RAVLT(TINY, ('rala',) * 4).double().eval())
    image = make_input((1, 3, 40, 56)).double()
    with torch.no_grad():
        outputs = model(image)
        nudged = model(image + 1e-10 * torch.randn_like(image))
    for output, other in zip(outputs, nudged, strict=True):
        assert output.dtype == torch.float64
        assert 0 < relative_error(other, output) < 1e-8


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


def test_shapes_are_found_on_the_meta_device():
    with torch.device('meta'):
        outputs = RAVLT('t')(torch.empty(2, 3, 75, 109))
    assert [tuple(out.shape[2:]) for out in outputs] == [
        (19, 28),
        (10, 14),
        (5, 7),
        (3, 4),
    ]


def test_tracing_a_model_leaves_no_symbols_behind():
    model = filled(RAVLT(TINY).eval()).double()
    image = make_input((1, 3, 72, 88)).double()
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        outputs = model(image)
        for output, other in zip(outputs, exported(image), strict=True):
            assert type(output) is torch.Tensor
            assert relative_error(other, output) <= 1e-12


def test_train_and_eval_return_the_module():
    model = RAVLT(TINY)
    assert model.train() is model
    assert model.eval() is model
    assert not any(module.training for module in model.modules())


def test_copies_and_state_dicts_give_the_same_outputs():
    model = filled(RAVLT(TINY).eval())
    image = make_input((1, 3, 40, 56))
    with torch.no_grad():
        expected = model(image)  # fills the caches, which must not disturb copying
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = RAVLT(TINY).eval()
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        with torch.no_grad():
            outputs = twin(image)
        assert all(map(torch.equal, outputs, expected))
    assert not any('RoPE' in name for name in model.state_dict())


@pytest.mark.parametrize('dtype,error', [(torch.float16, 1e-2), (torch.bfloat16, 8e-2)])
def test_half_precision_model_stays_close_to_float32(dtype, error):
    model = filled(RAVLT('t').eval())
    image = make_input((1, 3, 64, 96))
    with torch.no_grad():
        expected = model(image)
        outputs = model.to(dtype)(image.to(dtype))
    for output, reference in zip(outputs, expected, strict=True):
        assert output.dtype == dtype
        assert relative_error(output, reference) <= error


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


def test_other_numbers_of_image_channels():
    outputs = RAVLT(TINY, in_channels=5)(torch.randn(2, 5, 64, 64))
    assert [tuple(out.shape[1:]) for out in outputs][0] == (8, 16, 16)


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
        (dict(arch='x'), "arch is 'x'; give one of 't', 's', 'b', 'l'"),
        (dict(arch=dict(depths=(1, 1, 1, 1))), r"lacks \['embed_dims', 'num_heads'\]"),
        (dict(arch={**TINY, 'width': 3}), r"unknown keys \['width'\]"),
        (dict(arch={**TINY, 'depths': (1, 1)}), 'depths.*give 4 whole numbers'),
        (dict(arch={**TINY, 'depths': (1, 1, 0, 1)}), 'depths.*give 4 whole numbers'),
        (dict(arch={**TINY, 'num_heads': (1, 2, 5, 4)}), '24 channels for 5 heads'),
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
        (dict(out_indices=(0, 4)), r'out_indices is \(0, 4\)'),
        (dict(out_indices=()), r'out_indices is \(\)'),
        (dict(out_indices=(2, 1)), 'rising stage numbers'),
        (dict(norm_cfg=dict(type='NB')), r"norm_cfg is \{'type': 'NB'\}; give dict"),
        (dict(norm_cfg=None), "norm_cfg is None; give dict\\(type='BN'\\)"),
        (dict(norm_cfg=dict()), 'norm_cfg is {}; give dict'),
        (dict(norm_cfg=dict(type='LN')), "norm_cfg is .*'LN'"),
        (dict(norm_cfg='BN'), "norm_cfg is 'BN'"),
        (dict(arch=['t']), "arch is \\['t'\\]; give one of"),
        (dict(arch={**TINY, 'depths': 3}), 'depths.* is 3; give 4 whole numbers'),
        (dict(arch={**TINY, 'drop_path_rate': None}), 'drop_path_rate is None'),
        (dict(out_indices=3), 'out_indices is 3'),
        (dict(out_indices=(True,)), 'out_indices is'),
        (dict(in_channels=0), 'in_channels is 0'),
        (dict(drop_path_rate='a'), "drop_path_rate is 'a'"),
        (dict(layer_scale_init_values='abcd'), "layer_scale_init_values is 'abcd'"),
        (dict(frozen_stages=1.0), 'frozen_stages is 1.0'),
        (dict(drop_path_rate=1.0), 'drop_path_rate is 1.0'),
        (dict(layer_scale_init_values=(1, 1)), 'layer_scale_init_values is'),
        (dict(frozen_stages=5), 'frozen_stages is 5'),
        (dict(frozen_stages=-2), 'frozen_stages is -2'),
    ],
)
def test_wrong_values_get_a_readable_error(options, message):
    with pytest.raises(ValueError, match=message):
        RAVLT(**{'arch': TINY, **options})


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match='drop_path'):
        RAVLT('t', drop_path=0.1)
