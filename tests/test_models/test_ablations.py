"""The ablations of the paper's Table 9 compute what their names say."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_state_dict

from mmravlt import optimize_for_inference
from mmravlt.checkpoint import WrongWeightsError, read_contents, remap
from mmravlt.models import RAVLT
from mmravlt.models.backbones.ravlt import Block
from mmravlt.ops import rope2d_rotate, rope2d_table

from ..golden_fill import filled, make_input
from ..test_ops.test_rala import rala_as_in_the_paper

TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))
ROWS = {
    'release': {},
    'without_kv_augmentation': dict(kv_augmentation=False),
    'without_output_augmentation': dict(output_augmentation=False, ffn_ratio=4.0),
    'without_cpe': dict(cpe=False),
    'phi_identity': dict(phi='identity', ffn_ratio=4.0),
    'phi_tanh': dict(phi='tanh', ffn_ratio=4.0),
    'kappa_relu': dict(kappa='relu'),
    'kappa_softmax': dict(kappa='softmax'),
    'all_at_once': dict(
        **dict(kv_augmentation=False, kappa='softmax', phi='tanh'),
        **dict(cpe=False, ffn_ratio=2.3),
    ),
}
every_row = pytest.mark.parametrize('row', ROWS)


def literal_block(
    block,
    x,
    kind,
    *,
    kappa='elu+1',
    kv_augmentation=True,
    output_augmentation=True,
    phi='projection',
    cpe=True,
    ffn_ratio=3.5,
):
    """A block step by step on (B, C, H, W), with N×N similarities."""
    weights = dict(block.named_parameters())
    heads, (size, channels) = block.attn.num_heads, (x.shape[2:], x.shape[1])

    def conv(name, x):
        weight = weights[f'{name}.weight']
        groups = 1 if weight.shape[2:] == (1, 1) else x.shape[1]
        padding = weight.shape[-1] // 2
        bias = weights[f'{name}.bias']
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)

    def norm(name, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        weight, bias = weights[f'{name}.norm.weight'], weights[f'{name}.norm.bias']
        return x * weight[:, None, None] + bias[:, None, None]

    def to_heads(x):
        return x.unflatten(1, (heads, -1)).flatten(3).mT  # B, heads, N, d

    if cpe:
        x = x + conv('pos', x)
    normed = norm('norm1', x)
    has_weights = output_augmentation and phi == 'projection'
    made = conv('attn.qkvo' if has_weights else 'attn.qkv', normed)
    q, k, v, *gate = made.split(channels, dim=1)
    if phi != 'projection':
        gate = [dict(identity=normed, tanh=normed.tanh())[phi]]
    assert len(gate) == output_augmentation
    table = rope2d_table(*size, channels // heads, x.device)
    qkv = [to_heads(each) for each in (q, k, v)]
    if kind == 'rala':
        mixed = rala_as_in_the_paper(*qkv, table, kappa, kv_augmentation)
    else:
        q, k = (rope2d_rotate(each, table) for each in qkv[:2])
        mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ qkv[2]
    mixed = mixed.mT.flatten(1, 2).unflatten(2, size) + conv('attn.lepe', v)
    for factor in gate:
        mixed = mixed * factor
    x = x + weights['gamma_1'] * conv('attn.proj', mixed)
    hidden = F.gelu(conv('ffn.fc1', norm('norm2', x)))
    assert hidden.shape[1] == int(channels * ffn_ratio)
    hidden = hidden + conv('ffn.dwconv', hidden)
    return x + weights['gamma_2'] * conv('ffn.fc2', hidden)


@pytest.mark.parametrize('kind', ['rala', 'softmax'])
@pytest.mark.parametrize('height,width', [(5, 7), (1, 1)])
@every_row
def test_blocks_equal_their_equations_in_outputs_and_gradients(
    row, kind, height, width
):
    options = dict(ROWS[row])
    if kind == 'softmax':
        options = {
            n: options[n] for n in options if n not in ('kappa', 'kv_augmentation')
        }
    own = {n: options[n] for n in options if n in ('cpe', 'ffn_ratio')}
    attention = {n: options[n] for n in options if n not in own}
    block = Block(16, 2, dict(type=kind, **attention), 0.0, 1.0, **own)
    block = filled(block).double()
    x = make_input((2, 16, height, width)).double().requires_grad_()
    table = rope2d_table(height, width, 8, x.device)
    y, expected = block(x, table), literal_block(block, x, kind, **options)
    assert (y - expected).abs().max() <= 1e-10 * expected.abs().max()
    inputs, cotangent = (x, *block.parameters()), torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs, cotangent)
    expected_grads = torch.autograd.grad(expected, inputs, cotangent)
    scale = max(grad.abs().max() for grad in expected_grads)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert (grad - expected_grad).abs().max() <= 1e-10 * scale


@every_row
def test_every_parameter_gets_a_gradient_however_much_is_recomputed(row):
    image = make_input((2, 3, 45, 62))
    results = []
    for with_cp in (False, 'selective', True):
        model = filled(RAVLT(TINY, with_cp=with_cp, **ROWS[row])).train()
        outputs = model(image)
        sum(out.square().sum() for out in outputs).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        results.append([*outputs, *(p.grad for p in model.parameters())])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_a_traced_model_computes_the_same():
    model = filled(RAVLT(TINY, **ROWS['all_at_once'])).double().eval()
    image = make_input((1, 3, 45, 62)).double()
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        for output, other in zip(model(image), exported(image), strict=True):
            assert (other - output).abs().max() <= 1e-10 * output.abs().max()


@pytest.mark.parametrize('row', ['release', 'phi_tanh', 'without_output_augmentation'])
def test_the_first_convolution_can_be_hooked_in_every_form(row):
    attention = filled(RAVLT(TINY, **ROWS[row])).layers[1].blocks[0].attn
    shapes = []
    attention.first_conv.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(output.shape))
    )
    x, table = make_input((1, 16, 3, 5)), rope2d_table(3, 5, 8, torch.device('cpu'))
    attention(x, table, torch.nn.Identity(), torch.ones(1, 16, 1, 1))
    assert shapes == [(1, 64 if row == 'release' else 48, 3, 5)]


@every_row
def test_kv_buffers_belong_to_linear_attention_and_follow_the_options(row):
    model = RAVLT(TINY, **ROWS[row])
    qkv = torch.randn(3, 1, 2, 15, 8)
    table = rope2d_table(3, 5, 8, qkv.device)
    assert model.layers[3].blocks[0].attn.kv_buffer(*qkv, table) is None
    buffer = model.layers[1].blocks[0].attn.kv_buffer(*qkv, table)
    released = RAVLT(TINY).layers[1].blocks[0].attn.kv_buffer(*qkv, table)
    assert buffer.shape == (1, 2, 8, 8)
    is_other = 'kappa' in ROWS[row] or 'kv_augmentation' in ROWS[row]
    assert torch.allclose(buffer, released) != is_other


@pytest.mark.parametrize('row', [row for row in ROWS if row != 'release'])
def test_inference_optimisation_refuses_ablations(row):
    option = next(iter(ROWS[row]))
    with pytest.raises(ValueError, match=f'not with .*{option}=.*; leave it out'):
        optimize_for_inference(RAVLT(TINY, **ROWS[row]))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(kappa='elu'), "kappa is 'elu'; give one of 'elu.1', 'relu', 'softmax'"),
        (dict(phi='proj'), "phi is 'proj'; give one of 'projection', 'identity', 'ta"),
        (dict(cpe='no'), "cpe is 'no'; give True or False"),
        (dict(kv_augmentation=0), 'kv_augmentation is 0; give True or False'),
        (dict(output_augmentation=None), 'output_augmentation is None; give True or'),
        (dict(ffn_ratio=0), 'ffn_ratio is 0; give a number'),
        (dict(ffn_ratio=0.1), 'ffn_ratio is 0.1; .* hidden channels .* has 8'),
        (dict(ffn_ratio=float('nan')), 'ffn_ratio is nan'),
        (dict(ffn_ratio=float('inf')), 'ffn_ratio is inf'),
        (dict(ffn_ratio='4'), "ffn_ratio is '4'"),
        (dict(ffn_ratio=True), 'ffn_ratio is True'),
        (
            dict(phi='tanh', output_augmentation=False),
            "phi is 'tanh' although output_augmentation is False",
        ),
        (
            dict(kappa='relu', attention=('softmax',) * 4),
            "kappa is 'relu' although no stage has an attention with",
        ),
        (
            dict(
                kv_augmentation=False,
                attention=('softmax', 'rala', 'rala', 'rala'),
                out_indices=(0,),  # the others are not built
            ),
            'kv_augmentation is False although no stage has an attention',
        ),
    ],
)
def test_options_that_make_no_sense_get_a_readable_error(options, message):
    with pytest.raises(ValueError, match=message):
        RAVLT(TINY, **options)


# --- weights ---


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@every_row
def test_weights_of_an_ablation_load_into_it_strictly(row):
    trained = filled(RAVLT(TINY, **ROWS[row]))
    model = RAVLT(TINY, **ROWS[row])
    model.load_state_dict(trained.state_dict(), strict=True)
    again = RAVLT(TINY, **ROWS[row])
    load_state_dict(again, trained.state_dict(), strict=True)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
        assert torch.equal(again.state_dict()[name], value), name


@every_row
def test_released_weights_lack_what_the_ablation_changes_and_nothing_else(row):
    released = filled(RAVLT(TINY)).state_dict()
    model = RAVLT(TINY, **ROWS[row])
    weights, report = remap(read_contents(released), shapes(model))
    options = ROWS[row]
    gate_is_left = options.get('phi') or not options.get('output_augmentation', True)
    assert not report.new
    assert len(report.partial) == (2 * 5 if gate_is_left else 0)
    assert {name.split('.')[4] for name in report.unused} == (
        set() if options.get('cpe', True) else {'pos'}
    )
    assert {name.split('.')[4] for name in report.changed} == (
        {'ffn'} if 'ffn_ratio' in options else set()
    )
    line = "  not used of the file: the gate's rows of 10 weights attn.qkvo"
    assert (line in str(report)) == bool(gate_is_left)
    for name in report.partial:
        whole = released[name.replace('qkv', 'qkvo')]
        assert torch.equal(weights[name], whole[: len(whole) // 4 * 3])


def test_without_a_gate_and_with_the_released_ffn_all_weights_are_released():
    released = filled(RAVLT(TINY)).state_dict()
    model = RAVLT(TINY, output_augmentation=False)
    load_state_dict(model, released)
    block, weights = model.layers[0].blocks[0], 'layers.0.blocks.0.attn.qkvo.weight'
    assert torch.equal(block.attn.qkv.weight, released[weights][:24])
    with pytest.raises(WrongWeightsError, match="(?s)exact match.*gate's rows"):
        load_state_dict(model, released, strict=True)


def test_weights_without_a_gate_leave_that_of_the_release_as_it_was():
    model = RAVLT(TINY)
    _, report = remap(
        read_contents(RAVLT(TINY, phi='identity').state_dict()), shapes(model)
    )
    assert {name.split('.')[5] for name in report.new} == {'qkvo'}
    assert {name.split('.')[5] for name in report.unused} == {'qkv'}


def test_a_first_convolution_of_another_width_is_reported_not_cut():
    released = filled(RAVLT(TINY)).state_dict()
    name = 'layers.0.blocks.0.attn.qkvo.weight'
    odd = {**released, name: torch.zeros(40, 8, 1, 1)}
    model = RAVLT(TINY, output_augmentation=False)
    _, report = remap(read_contents(odd), shapes(model))
    own = name.replace('qkvo', 'qkv')
    assert report.changed == {own: ((40, 8, 1, 1), (24, 8, 1, 1))}
    assert own not in report.partial
