import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

import mmravlt
from mmravlt import optimize_for_inference
from mmravlt.models import RAVLT, GlobalAttention
from mmravlt.models.layers import RALAttention, split_heads
from mmravlt.ops import rope2d_table
from mmravlt.registry import ATTENTIONS

LINEAR = [
    *('linear', 'hydra', 'efficient', 'linear_angular', 'enhanced', 'focused'),
    'l2vit',
]
KINDS = [*LINEAR, 'rala', 'softmax']
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
    img_size=32,
    patch_size=8,
    with_cls_token=False,
    out_type='avg_featmap',
    final_norm=False,
    drop_path_rate=0.5,
)
SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=24, depths=[1, 2], num_heads=[3, 6]),
    out_indices=(0, 1),
    drop_path_rate=0.5,
)
every_kind = pytest.mark.parametrize('kind', KINDS)


def with_attention(backbone, kind, **options):
    model = MODELS.build(
        dict(
            type='mmravlt.WithGlobalAttention', backbone=backbone, kind=kind, **options
        )
    )
    model.eval()  # no stochastic depth
    return model


def assert_all_get_gradients(model, outputs):
    sum(y.square().sum() for y in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize('kind', LINEAR)
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_stage_of_ravlt_takes_every_kind_and_trains(kind, with_cp):
    model = RAVLT(TINY, attention=(kind, 'rala', kind, 'softmax'), with_cp=with_cp)
    maps = model(torch.randn(2, 3, 75, 109))
    assert [y.shape for y in maps] == [
        (2, 8, 19, 28),
        (2, 16, 10, 14),
        (2, 24, 5, 7),
        (2, 32, 3, 4),
    ]
    assert_all_get_gradients(model, maps)


def test_kinds_add_no_convolution_to_the_one_that_ravlt_has():
    released = RAVLT(TINY).state_dict().keys()
    for kind in LINEAR:
        added = RAVLT(TINY, attention=(kind,) * 4).state_dict().keys() - released
        learnt = {name.rpartition('.')[2] for name in added}
        assert learnt == dict(focused={'scale'}, l2vit={'temperature'}).get(kind, set())


def test_inference_optimisation_refuses_what_it_does_not_know():
    model = RAVLT(TINY, attention=('focused', 'rala', 'softmax', 'softmax'))
    with pytest.raises(
        ValueError, match='is a FocusedAttention, not RALAttention or Soft'
    ):
        optimize_for_inference(model)


@every_kind
@pytest.mark.parametrize('height,width', [(5, 9), (1, 1), (4, 4)])
def test_global_attention_keeps_the_shape_of_any_map_and_trains(kind, height, width):
    attention = GlobalAttention(24, 3, kind)
    x = torch.randn(2, 24, height, width, requires_grad=True)
    y = attention(x)
    assert y.shape == x.shape
    if height * width > 1:  # a single token makes nothing of its query and key
        assert_all_get_gradients(attention, [y])
        assert x.grad.abs().max() > 0


@every_kind
def test_global_attention_looks_everywhere(kind):
    attention = GlobalAttention(24, 3, kind).double()
    x = torch.randn(1, 24, 16, 17, dtype=torch.double, requires_grad=True)
    attention(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, -1, -1].abs().max() > 0


@every_kind
def test_only_convolutions_of_a_kind_and_rope_know_positions(kind):
    attention = GlobalAttention(24, 3, kind).double()
    x = torch.randn(1, 24, 5, 7, dtype=torch.double)
    order = torch.randperm(35)

    def shuffled(maps):
        return maps.flatten(2)[..., order].view_as(maps)

    same = torch.allclose(shuffled(attention(x)), attention(shuffled(x)))
    assert same == (kind not in ('linear_angular', 'enhanced', 'focused'))
    attention.rope = True
    same = torch.allclose(shuffled(attention(x)), attention(shuffled(x)))
    assert same == (kind in ('linear', 'hydra', 'efficient', 'l2vit'))


@every_kind
def test_only_rala_has_a_gate(kind):
    names = dict(GlobalAttention(24, 3, kind).attention.named_children())
    assert ('qkvo' in names) == (kind == 'rala')
    assert ('qkv' in names) == (kind != 'rala')


def test_convolutions_of_the_values_are_those_of_the_papers():
    sizes = {
        kind: sum(
            p.numel() for p in GlobalAttention(24, 3, kind).attention.lepe.parameters()
        )
        for kind in ('linear_angular', 'enhanced', 'focused')
    }
    # 9 for each head; 5×5 and a bias for each channel; and for each one of a head
    assert sizes == dict(linear_angular=3 * 9, enhanced=24 * 26, focused=8 * 26)


@pytest.mark.parametrize('kind', ['linear_angular', 'focused'])
def test_heads_share_or_own_the_weights_of_their_convolution(kind):
    attention = GlobalAttention(24, 3, kind).attention
    head = torch.randn(1, 8, 5, 7)
    y = attention.lepe(torch.cat([head, 2 * head, head], 1))
    y = y - attention.lepe(torch.zeros(1, 24, 5, 7))
    first, second, third = y.chunk(3, 1)
    assert torch.allclose(second, 2 * first, atol=1e-6) == (kind == 'focused')
    assert torch.allclose(third, first, atol=1e-6) == (kind == 'focused')


@pytest.mark.parametrize('kind', ['linear_angular', 'enhanced', 'focused'])
def test_the_convolution_of_the_values_is_added_to_what_was_mixed(kind):
    module = GlobalAttention(12, 3, kind).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    attention = module.attention
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    q, k, v = attention.qkv(x).chunk(3, dim=1)
    heads = (split_heads(part, 3) for part in (q, k, v))
    mixed = attention.mix(*heads, None).transpose(1, 2).flatten(2).mT.view(x.shape)
    expected = attention.proj(mixed + attention.lepe(v))
    torch.testing.assert_close(module(x), expected)


def test_an_empty_batch_is_an_empty_map():
    for kind in sorted(ATTENTIONS.module_dict):
        assert GlobalAttention(24, 3, kind)(torch.randn(0, 24, 4, 5)).numel() == 0


def test_frozen_stages_keep_their_new_attention_frozen():
    vit = dict(VIT, frozen_stages=1)
    model = with_attention(vit, 'rala')
    trained = {
        i: any(p.requires_grad for p in layer.parameters())
        for i, layer in enumerate(model.layers)
    }
    assert not trained[0] and trained[1]


def test_the_convolution_of_linear_angular_attention_runs_along_the_tokens():
    attention = GlobalAttention(24, 3, 'linear_angular').attention
    x = torch.zeros(1, 24, 3, 7)
    x[..., 1, 0] = 1  # token 7 of 21
    y = attention.lepe(x)
    weights = attention.lepe.weight.detach().view(3, 9).flip(1)
    expected = torch.zeros(3, 21)
    expected[:, 3:12] = weights
    torch.testing.assert_close(
        split_heads(y, 3)[0], expected[..., None].expand(-1, -1, 8)
    )


@pytest.mark.parametrize('kind', LINEAR)
def test_every_linear_kind_shows_its_buffer(kind):
    attention = GlobalAttention(24, 3, kind).attention.double()
    q, k, v = torch.randn(3, 2, 3, 35, 8, dtype=torch.double)
    table = rope2d_table(5, 7, 8, q.device)
    buffer = attention.kv_buffer(q, k, v, table)
    assert buffer.shape == (2, 3, 8, 8)
    q_features, k_features = attention.features(q, k)
    expected = k_features.mT @ v
    if kind == 'hydra':
        expected = torch.diag_embed(expected.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(buffer, expected)
    numerator, y = q_features @ buffer, attention.mix(q, k, v, table)
    if kind == 'linear_angular':
        numerator = 0.5 * v + numerator / torch.pi
    # The result is the product up to one factor for each token. (Where no feature of
    # a token is positive, both are zero.)
    factor = (y * numerator).sum(-1) / numerator.square().sum(-1).clamp(min=1e-60)
    torch.testing.assert_close(y, factor[..., None] * numerator)
    assert (factor[numerator.any(-1)] > 0).all()


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(kind='x'), "kind is 'x'; give a name out of 'efficient', "),
        (dict(num_heads=5), 'num_heads is 5 for 24 channels; give a number that'),
        (dict(num_heads=12), 'leaves each head a multiple of 4 channels'),
        (dict(num_heads=0), 'num_heads is 0'),
    ],
)
def test_what_no_attention_can_be_built_of_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GlobalAttention(**{**dict(channels=24, num_heads=3), **options})


@every_kind
@pytest.mark.parametrize('backbone', [VIT, SWIN], ids=['vit', 'swin'])
def test_backbones_of_mmpretrain_train_with_every_kind(kind, backbone):
    model = with_attention(backbone, kind)
    replaced = [m for m in model.modules() if isinstance(m, GlobalAttention)]
    assert len(replaced) == (2 if backbone is VIT else 3)
    assert_all_get_gradients(model, model(torch.randn(2, 3, 24, 40)))


@pytest.mark.parametrize('backbone', [VIT, SWIN], ids=['vit', 'swin'])
def test_nothing_but_the_attention_is_replaced(backbone):
    plain = MODELS.build(backbone)
    model = with_attention(backbone, 'hydra')
    kept = [name for name in plain.state_dict() if '.attn.' not in name]
    assert kept == [name for name in model.state_dict() if '.attn.' not in name]
    drops = [m.drop_prob for m in plain.modules() if hasattr(m, 'drop_prob')]
    assert drops == [m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')]


def test_vit_with_global_softmax_is_vit_itself():
    plain = MODELS.build(VIT)
    plain.eval()
    model = with_attention(VIT, 'softmax')
    weights = {
        name.replace('attn.attention', 'attn'): name for name in model.state_dict()
    }
    state = {
        name: plain.state_dict()[old].view_as(model.state_dict()[name])
        for old, name in weights.items()
    }
    model.load_state_dict(state)
    x = torch.randn(2, 3, 48, 24)
    torch.testing.assert_close(model(x), plain(x))


def test_a_copied_vit_knows_the_size_of_its_own_map():
    model = with_attention(VIT, 'focused')
    other = copy.deepcopy(model)
    x, y = torch.randn(1, 3, 16, 64), torch.randn(1, 3, 32, 32)
    expected = model(x)[0]
    model.patch_embed(y)
    torch.testing.assert_close(other(x)[0], expected)


def test_positions_reach_an_attention_only_by_option():
    plain = with_attention(SWIN, 'rala')
    rotated = with_attention(SWIN, 'rala', rope=True)
    rotated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 40, 24)
    assert not torch.allclose(plain(x)[0], rotated(x)[0])


@pytest.mark.parametrize(
    'backbone,message',
    [
        (dict(type='mmpretrain.VisionTransformer', arch='deit-tiny'), 'a class token'),
        (dict(type='mmpretrain.ResNet', depth=18), 'ResNet has no attention that'),
        (dict(type='mmpretrain.MobileViT', arch='xx_small'), 'MobileViT has no att'),
        (dict(type='RAVLT', arch=TINY), 'RAVLT has no attention that'),
    ],
)
def test_backbones_without_a_map_of_tokens_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        with_attention(backbone, 'rala')


def test_kinds_that_others_register_work_outside_of_ravlt_too():
    class Mean(ATTENTIONS.get('linear')):
        def mix(self, q, k, v, table):
            return v.mean(-2, keepdim=True).expand_as(v)

    ATTENTIONS.register_module('mean', module=Mean)
    try:
        y = GlobalAttention(24, 3, 'mean')(torch.randn(2, 24, 3, 5))
        assert y.std((2, 3)).max() < 1e-6
    finally:
        ATTENTIONS.module_dict.pop('mean')


def test_global_attention_is_a_module_that_configs_can_name():
    built = MODELS.build(dict(type='GlobalAttention', channels=8, num_heads=2))
    assert isinstance(built, nn.Module) and mmravlt.models.GlobalAttention is type(
        built
    )


class Rescaled(RALAttention):
    """A kind with an option of its own, and another default of RALA's."""

    def __init__(self, channels, num_heads, *args, power=1, kappa='relu', **options):
        super().__init__(channels, num_heads, *args, kappa=kappa, **options)
        self.power = power


@pytest.fixture
def rescaled():
    ATTENTIONS.register_module('rescaled', module=Rescaled)
    yield
    ATTENTIONS.module_dict.pop('rescaled')


def test_a_registered_kind_keeps_its_defaults_beside_others(rescaled):
    model = RAVLT(TINY, attention=('rala', 'rescaled', 'softmax', 'softmax'))
    kappas = [model.layers[i].blocks[0].attn.kappa for i in (0, 1)]
    assert kappas == ['elu+1', 'relu']
    with pytest.raises(ValueError, match='is a Rescaled, not RALAttention or Soft'):
        optimize_for_inference(model)


def test_options_of_a_kind_are_for_its_stages_and_short_forms_for_all_that_have_them(
    rescaled,
):
    kinds = (
        dict(type='rescaled', power=3, kv_augmentation=False),
        'rescaled',
        dict(type=Rescaled, phi='tanh'),
        'softmax',
    )
    model = RAVLT(TINY, attention=kinds, kappa='softmax')
    *first, last = (stage.blocks[0].attn for stage in model.layers)
    assert [each.kappa for each in first] == ['softmax'] * 3
    assert [each.power for each in first] == [3, 1, 1]
    assert [each.kv_augmentation for each in first] == [False, True, True]
    assert [each.phi for each in first] == ['projection', 'projection', 'tanh']
    assert not hasattr(last, 'kappa')
    assert len(model(torch.randn(1, 3, 33, 40))) == 4


def test_options_of_a_dict_equal_the_short_forms():
    kind = dict(type='rala', kappa='relu', phi='identity')
    models = [
        RAVLT(TINY, attention=kind),
        RAVLT(TINY, attention='rala', kappa='relu', phi='identity'),
    ]
    models[1].load_state_dict(models[0].state_dict())
    image = torch.randn(1, 3, 33, 40)
    maps, expected = (model.eval()(image) for model in models)
    assert all(map(torch.equal, maps, expected))


@pytest.mark.parametrize('name', ['GlobalAttention', 'VIT', 'SWIN'])
def test_kinds_with_options_stand_in_any_network(name, rescaled):
    kind = dict(type='rescaled', power=2, phi='tanh')
    if name == 'GlobalAttention':
        model = GlobalAttention(24, 3, kind)
    else:
        model = with_attention(dict(VIT=VIT, SWIN=SWIN)[name], kind)
    found = [m for m in model.modules() if isinstance(m, Rescaled)]
    assert found and {(m.power, m.kappa, m.phi) for m in found} == {(2, 'relu', 'tanh')}
    with pytest.raises(ValueError, match="kind is .* has no 'force'; it has"):
        GlobalAttention(24, 3, dict(type='rala', force=2))


def test_the_former_name_of_the_transplant_still_builds_and_warns_once():
    with pytest.warns(FutureWarning, match="called 'WithGlobalAttention'") as caught:
        MODELS.build(dict(type='with_attention', backbone=VIT, kind='linear'))
    assert len([w for w in caught if w.category is FutureWarning]) == 1
