"""Measures of rank are exact, and recording them leaves a model as it was."""

import math

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from mmravlt.analysis.rank import (
    MEASURES,
    analyze,
    measure,
    record,
    singular_values,
    table,
)
from mmravlt.models import RAVLT, GlobalAttention, L2ViT, WithGlobalAttention
from mmravlt.ops import rope2d_table
from mmravlt.registry import ATTENTIONS

ARCH = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))
ALL_LAYERS = [1, 2, 3, 4, 5]


def matrix_of(values, rows, columns, seed=0):
    """A matrix with these singular values, float64."""
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    left, right = (
        torch.linalg.qr(torch.randn(n, count, generator=generator).double())[0]
        for n in (rows, columns)
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


@pytest.mark.parametrize('rows,columns', [(9, 9), (31, 7), (5, 12)])
@pytest.mark.parametrize('rank', [1, 3, 5])
def test_equal_singular_values_give_their_number(rows, columns, rank):
    values = singular_values(matrix_of([2.5] * rank, rows, columns))
    assert values.shape == (min(rows, columns),)
    found = measure(values)
    for name in ('rank', 'stable_rank', 'effective_rank'):
        assert found[name].item() == pytest.approx(rank, rel=1e-9), name
    assert found['entropy'].item() == pytest.approx(math.log(rank), abs=1e-9)


@pytest.mark.parametrize('threshold,rank', [(0.01, 7), (0.25, 2), (0.2, 3), (0, 10)])
def test_measures_of_a_falling_spectrum_follow_their_equations(threshold, rank):
    spectrum = [3 * 2.0**-i for i in range(10)]
    found = measure(singular_values(matrix_of(spectrum, 40, 10)), threshold)
    shares = [s / sum(spectrum) for s in spectrum]
    entropy = -sum(p * math.log(p) for p in shares)
    assert found['rank'].item() == rank
    assert found['stable_rank'].item() == pytest.approx((1 - 4**-10) / (1 - 1 / 4))
    assert found['entropy'].item() == pytest.approx(entropy)
    assert found['effective_rank'].item() == pytest.approx(math.exp(entropy))


def test_a_factor_or_missing_directions_change_nothing():
    values = singular_values(torch.randn(2, 3, 20, 6))
    plain, scaled = measure(values), measure(values * 1e-30)
    padded = measure(nn.functional.pad(values, (0, 4)))
    assert list(plain) == list(MEASURES)
    for name, expected in plain.items():
        assert expected.shape == (2, 3)
        torch.testing.assert_close(scaled[name], expected)
        torch.testing.assert_close(padded[name], expected)


def test_a_matrix_of_zeros_has_no_rank():
    for name, value in measure(singular_values(torch.zeros(4, 3))).items():
        assert value.item() == 0, name


def test_singular_values_keep_what_float32_loses():
    spectrum = [1.0, 1e-5, 1e-11]
    values = singular_values(matrix_of(spectrum, 50, 3))
    assert values.tolist() == pytest.approx(spectrum, rel=1e-4)


@pytest.mark.parametrize('threshold', [-0.1, 1, float('nan')])
def test_a_threshold_out_of_range_is_named(threshold):
    with pytest.raises(ValueError, match=f'threshold is {threshold}; give a share'):
        measure(torch.ones(3), threshold)


@pytest.mark.parametrize('kind', sorted({*ATTENTIONS.module_dict} - {'hydra'}))
def test_values_of_known_rank_give_buffers_and_features_of_that_rank(kind):
    """Values in r directions let both matrices have rank r; r differs by head."""
    channels, ranks = 24, (1, 5, 8)
    attention = ATTENTIONS.get(kind)(
        channels, len(ranks), output_augmentation=False, lepe=False
    ).double()
    attention.lepe = None  # where the kind has its own convolution of the values
    torch.manual_seed(0)
    nn.init.normal_(attention.qkv.weight)
    nn.init.zeros_(attention.qkv.bias)
    with torch.no_grad():
        values = attention.qkv.weight[2 * channels :, :, 0, 0].view(3, 8, channels)
        for head, rank in zip(values, ranks, strict=True):
            directions = torch.randn(8, rank).double()
            head.copy_(directions @ torch.randn(rank, channels).double())
    x = torch.randn(2, channels, 7, 9).double() / 4
    with record(attention) as samples, torch.no_grad():
        attention(x, rope2d_table(7, 9, 8, x.device), nn.Identity(), None)
    by_matrix = {sample.matrix: sample.values for sample in samples}
    assert ('kv_buffer' in by_matrix) == (kind != 'softmax')
    whole = by_matrix.pop('output_map')  # directions of one head are no other's
    assert whole.shape == (2, 1, 63, 24)
    assert measure(singular_values(whole), 1e-9)['rank'].tolist() == [[14]] * 2
    for matrix, values in by_matrix.items():
        assert values.shape == (2, 3, 8 if matrix == 'kv_buffer' else 63, 8)
        found = measure(singular_values(values), 1e-9)['rank']
        assert found.tolist() == [list(ranks)] * 2, matrix


def test_recorded_matrices_are_those_that_the_output_comes_from():
    torch.manual_seed(0)
    layer = GlobalAttention(16, 2, 'linear')
    nn.init.normal_(layer.attention.qkv.weight, std=0.3)
    x = torch.randn(1, 16, 5, 6)
    with torch.no_grad():
        with record(layer) as samples:
            layer(x)
        output = layer(x)
        q, k, v = layer.attention.qkv(x).flatten(2).unflatten(1, (3, 2, 8))[0].mT
        q, k = (nn.functional.elu(x) + 1 for x in (q, k))
        buffer = k.mT @ v
        mixed = q @ buffer / (q @ k.sum(1, keepdim=True).mT)
        features = {s.matrix: s.values[0] for s in samples}
        torch.testing.assert_close(features['kv_buffer'], buffer)
        torch.testing.assert_close(features['output_features'], mixed)
        joined = features['output_features'].mT.reshape(1, 16, 5, 6)
        torch.testing.assert_close(layer.attention.proj(joined), output)


def test_the_gate_is_part_of_the_features_and_not_of_the_buffer():
    torch.manual_seed(0)
    layer, x = GlobalAttention(16, 2, 'rala', rope=True), torch.randn(1, 16, 5, 6)
    nn.init.normal_(layer.attention.qkvo.weight, std=0.3)
    table = rope2d_table(5, 6, 8, x.device)
    with torch.no_grad():
        with record(layer) as samples:
            layer(x)
        parts = layer.attention.qkvo(x).flatten(2).unflatten(1, (4, 2, 8))[0].mT
        *q_k_v, gate = parts.unsqueeze(1)
        features = layer.attention.mix(*q_k_v, table) * gate
        buffer = layer.attention.kv_buffer(*q_k_v, table)
    recorded = {s.matrix: s.values for s in samples}
    torch.testing.assert_close(recorded['kv_buffer'], buffer)
    torch.testing.assert_close(recorded['output_features'], features)


class OwnAttention(nn.Module):
    """Of nobody's base class, and without positions."""

    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.first_conv = nn.Conv2d(16, 48, 1)
        self.proj = nn.Conv2d(16, 16, 1)

    def kv_buffer(self, q, k, v, table):
        assert table is None
        return k.mT @ v

    def forward(self, x):
        q, k, v = self.first_conv(x).flatten(2).unflatten(1, (3, 2, 8)).mT.unbind(1)
        y = q @ self.kv_buffer(q, k, v, None)
        return self.proj(y.mT.reshape(x.shape))


def test_attention_of_ones_own_is_recorded_by_its_parts():
    model, x = OwnAttention(), torch.randn(3, 16, 4, 5)
    with record(model) as samples, torch.no_grad():
        model(x)
    q, k, v = model.first_conv(x).flatten(2).unflatten(1, (3, 2, 8)).mT.unbind(1)
    torch.testing.assert_close(samples[0].values, k.mT @ v)
    torch.testing.assert_close(samples[1].values, q @ k.mT @ v)
    assert not hooks_of(model)


def hooks_of(model):
    names = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks')
    return [getattr(m, n) for m in model.modules() for n in names if getattr(m, n)]


def test_a_model_is_the_same_afterwards():
    torch.manual_seed(0)
    model = RAVLT(ARCH, norm_eval=True, frozen_stages=1).train()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {id(m): set(vars(m)) for m in model.modules()}
    x = torch.randn(2, 3, 61, 45)
    before = model.eval()(x)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    analyze(model, [x])
    assert [module.training for module in model.modules()] == modes
    assert not hooks_of(model)
    assert {id(m): set(vars(m)) for m in model.modules()} == attributes
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for one, other in zip(before, model.eval()(x), strict=True):
        assert torch.equal(one, other)


def test_a_model_is_the_same_after_an_error():
    model = RAVLT(ARCH).train()
    with pytest.raises(RuntimeError):
        analyze(model, [torch.randn(1, 4, 64, 64)])
    assert model.training
    assert not hooks_of(model)


def test_recording_changes_outputs_by_rounding_only():
    torch.manual_seed(0)
    model = RAVLT(ARCH, attention=('rala',) * 4).eval()
    x = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        expected = model(x)
        with record(model):
            recorded = model(x)
    for one, other in zip(recorded, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('with_cp', [False, 'selective', True])
@pytest.mark.parametrize('kind', sorted(ATTENTIONS.module_dict))
def test_every_kind_of_attention_is_recorded(kind, with_cp):
    model = RAVLT(ARCH, attention=(kind,) * 4, with_cp=with_cp)
    found = analyze(model, [torch.randn(2, 3, 75, 109)])
    assert found.layers('output_features') == ALL_LAYERS
    assert found.layers('kv_buffer') == ([] if kind == 'softmax' else ALL_LAYERS)
    assert found.modules[2] == 'layers.1.blocks.1.attn'
    for (layer, matrix), spectra in found.spectra.items():
        heads = (1, 2, 2, 3, 4)[layer - 1]
        shape = (2, 1, 8 * heads) if matrix == 'output_map' else (2, heads, 8)
        assert spectra.values.shape == shape
        assert (spectra.values[..., :-1] >= spectra.values[..., 1:]).all()


@pytest.mark.parametrize(
    'options',
    [
        dict(kv_augmentation=False),
        dict(output_augmentation=False),
        dict(phi='identity'),
        dict(kappa='softmax'),
        dict(cpe=False),
    ],
    ids=str,
)
def test_ablations_are_recorded(options):
    found = analyze(RAVLT(ARCH, **options), [torch.randn(1, 3, 64, 64)])
    assert found.layers('kv_buffer') == [1, 2, 3]
    assert found.layers('output_features') == ALL_LAYERS


def test_of_l2vit_every_attention_is_recorded():
    arch = dict(embed_dims=(8, 16, 24, 32), depths=(2, 3, 2, 1), num_heads=(1, 2, 3, 4))
    model = L2ViT(arch)
    found = analyze(model, [torch.randn(1, 3, 75, 109)])
    assert found.modules[:3] == [
        'stages.0.0.attn',
        'stages.0.1.attn',
        'stages.1.0.attn',
    ]
    assert found.layers('output_features') == list(range(1, 9))
    assert found.layers('kv_buffer') == [2, 4, 7]  # the global ones
    assert found.spectra[4, 'kv_buffer'].values.shape == (1, 2, 8)


def test_each_window_counts_as_an_image():
    import mmpretrain.models  # noqa: F401

    arch = dict(embed_dims=24, depths=[1, 2], num_heads=[3, 6])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        from mmengine.registry import MODELS

        swin = dict(type='SwinTransformer', arch=arch, out_indices=(0, 1))
        model = MODELS.build(swin)
    # 16×16 tokens in 3×3 windows of 7×7, then 8×8 in 2×2
    found = analyze(model, [torch.randn(2, 3, 64, 64)])
    assert found.layers('output_features') == [1, 2, 3]
    assert not found.layers('kv_buffer') and found.images == 2
    rows = table([found])
    assert [row['images'] for row in rows] == (3 + 1) * [2 * 9] + 2 * (6 + 1) * [2 * 4]
    of_heads = [row for row in rows if row['head'] != 'all']
    assert {(r['tokens'], r['d'], r['full_rank']) for r in of_heads} == {(49, 8, 8)}
    whole = [(r['d'], r['full_rank']) for r in rows if r['head'] == 'all']
    assert whole == [(24, 24), (48, 48), (48, 48)]


@pytest.mark.parametrize('kind', [None, 'rala', 'hydra'])
def test_a_plain_transformer_is_recorded_with_its_attention_and_with_another(kind):
    import mmpretrain.models  # noqa: F401

    backbone = dict(
        type='VisionTransformer',
        arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
        img_size=64,
        patch_size=16,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        from mmengine.registry import MODELS

        if kind is None:
            model = MODELS.build(backbone)
        else:
            backbone.update(with_cls_token=False, out_type='avg_featmap')
            model = WithGlobalAttention(backbone, kind)
    found = analyze(model, [torch.randn(2, 3, 64, 64)])
    assert found.layers('output_features') == [1, 2]
    assert found.layers('kv_buffer') == ([] if kind is None else [1, 2])
    spectra = found.spectra[2, 'output_features']
    assert spectra.values.shape == (2, 3, 8)
    tokens = 17 if kind is None else 16  # with the class token
    assert spectra.tokens.tolist() == [tokens] * 2
    assert spectra.example.shape == (3, tokens, 8)
    values = singular_values(spectra.example)
    torch.testing.assert_close(spectra.values[0], values)


def test_the_table_averages_over_images_of_any_size():
    torch.manual_seed(0)
    model = RAVLT(ARCH)
    images = [torch.randn(1, 3, 64, 64), torch.randn(1, 3, 128, 96)]
    together = analyze(model, images, 'mine')
    spectra = together.spectra[5, 'output_features']
    assert spectra.tokens.tolist() == [4, 12]
    shown = singular_values(spectra.example)  # the first image
    torch.testing.assert_close(spectra.values[0, :, :4], shown)
    assert not spectra.values[0, :, 4:].any()
    rows = table([together], threshold=0.1)
    heads = 1 + 2 * 2 + 3 + 4
    assert len(rows) == heads + 1 + 2 * 2 + len(ALL_LAYERS)
    alone = [table([analyze(model, [x])], threshold=0.1) for x in images]
    for row, one, other in zip(rows, *alone, strict=True):
        assert (row['model'], row['weights'], row['images']) == ('mine', 'untrained', 2)
        heads = (1, 2, 2, 3, 4)[row['layer'] - 1] if row['head'] == 'all' else 1
        assert row['d'] == 8 * heads
        assert row['tokens'] == (one['tokens'] + other['tokens']) / 2
        for name in MEASURES:
            first, second = one[f'{name}_mean'], other[f'{name}_mean']
            assert row[f'{name}_mean'] == pytest.approx((first + second) / 2)
            assert row[f'{name}_std'] == pytest.approx(abs(first - second) / 2)
            assert one[f'{name}_std'] == 0
        assert row['rank_mean'] <= row['full_rank'] <= row['d']
    last, whole = rows[-2:]  # 2×2 and 4×3 tokens
    assert (whole['matrix'], whole['full_rank']) == ('output_map', (4 + 12) / 2)
    assert (last['layer'], last['head'], last['matrix']) == (5, 4, 'output_features')
    assert last['full_rank'] == (4 + 8) / 2


def test_a_batch_counts_as_its_images():
    torch.manual_seed(0)
    model, images = RAVLT(ARCH), torch.randn(3, 3, 64, 64)
    batch, single = (analyze(model, x) for x in ([images], images.split(1)))
    for key, spectra in batch.spectra.items():
        torch.testing.assert_close(spectra.values, single.spectra[key].values)
    for one, other in zip(table([batch]), table([single]), strict=True):
        assert one['images'] == other['images'] == 3
        for name in {*MEASURES} - {'rank'}:  # which a value at the threshold changes
            for key in (f'{name}_mean', f'{name}_std'):
                assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-4)


def test_weights_that_are_not_finite_are_named():
    model = RAVLT(ARCH)
    nn.init.constant_(model.layers[1].blocks[0].attn.first_conv.bias, math.nan)
    with pytest.raises(ValueError, match='KV buffer of layers.1.blocks.0.attn has val'):
        analyze(model, [torch.randn(1, 3, 64, 64)])


def test_a_model_without_a_known_attention_is_named():
    with pytest.raises(ValueError, match='The Conv2d has no attention that is known'):
        analyze(nn.Conv2d(3, 3, 1), [torch.randn(1, 3, 8, 8)])


def test_no_images_are_an_error():
    with pytest.raises(ValueError, match='no images to analyse; give at least one'):
        analyze(RAVLT(ARCH), [])
