"""What every backbone owes its users; a new subclass of Backbone is tested as it is."""

import copy
import io
import pickle

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmravlt.models.backbones.base import Backbone

from ..golden_fill import filled, make_input, relative_error

SIZES = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 2), num_heads=(1, 2, 3, 4))
# Options that choose other layers than the defaults do, where a backbone has them.
LAYOUTS = {
    'RAVLT': [
        dict(attention=kinds * 2)
        for kinds in (('rala', 'rala'), ('softmax', 'softmax'), ('softmax', 'rala'))
    ]
}
# How the parameters before a stage are called: they are frozen with the stage above,
# those before the first stage with ``frozen_stages=0``. Others are not looked at.
BEFORE_STAGE = {
    'RAVLT': ['patch_embed.', *(f'layers.{i}.downsample.' for i in range(3))],
    'L2ViT': [f'downsample_layers.{i}.' for i in range(4)],
}
BACKBONES = sorted(Backbone.__subclasses__(), key=lambda cls: cls.__name__)

every_backbone = pytest.mark.parametrize('cls', BACKBONES, ids=lambda cls: cls.__name__)
every_layout = pytest.mark.parametrize(
    'cls,layout',
    [(cls, each) for cls in BACKBONES for each in [{}, *LAYOUTS.get(cls.__name__, [])]],
    ids=lambda value: getattr(value, '__name__', None),
)
every_arch = pytest.mark.parametrize(
    'cls,arch', [(cls, arch) for cls in BACKBONES for arch in cls.arch_zoo]
)
every_norm = pytest.mark.parametrize('norm', ['BN', 'SyncBN'])


def names(model):
    return {name for name, _ in model.named_parameters()}


def batch_norms(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}


def weighted_sum(outputs):
    """A loss in which no two values of the maps count alike."""
    return sum((out * make_input(out.shape, i)).sum() for i, out in enumerate(outputs))


def test_the_backbones_were_found():
    assert {'RAVLT', 'L2ViT'} <= {cls.__name__ for cls in BACKBONES}


@pytest.mark.parametrize(
    'height,width', [(75, 109), (32, 32), (33, 64), (28, 256), (97, 40), (1, 1)]
)
@every_layout
def test_any_size_gives_maps_rounded_up_at_each_stride(cls, layout, height, width):
    model = cls(SIZES, **layout).eval()
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, height, width))
    for output, stride, channels in zip(
        outputs, (4, 8, 16, 32), SIZES['embed_dims'], strict=True
    ):
        assert output.shape == (2, channels, -(-height // stride), -(-width // stride))
        assert output.isfinite().all()


@every_backbone
def test_shapes_are_found_on_the_meta_device(cls):
    with torch.device('meta'):
        outputs = cls(next(iter(cls.arch_zoo)))(torch.empty(2, 3, 75, 109))
    sizes = [tuple(out.shape[2:]) for out in outputs]
    assert sizes == [(19, 28), (10, 14), (5, 7), (3, 4)]


@every_backbone
def test_images_may_have_other_numbers_of_channels(cls):
    outputs = cls(SIZES, in_channels=5)(torch.randn(2, 5, 64, 64))
    assert outputs[0].shape == (2, 8, 16, 16)


@pytest.mark.parametrize('height,width', [(75, 109), (64, 96), (28, 28)])
@every_layout
def test_batch_and_memory_format_do_not_change_the_result(cls, layout, height, width):
    model = filled(cls(SIZES, **layout).eval())
    images = make_input((2, 3, height, width))
    with torch.no_grad():
        together = model(images)
        channels_last = model(images.contiguous(memory_format=torch.channels_last))
        apart = [model(image[None]) for image in images]
        none = model(images[:0])
    for i, output in enumerate(together):
        assert relative_error(channels_last[i], output) <= 1e-6
        assert none[i].shape == (0, *output.shape[1:])
        for b in range(2):
            assert relative_error(apart[b][i][0], output[b]) <= 1e-5


@pytest.mark.parametrize('dtype,error', [(torch.float16, 1e-2), (torch.bfloat16, 8e-2)])
@every_backbone
def test_half_precision_stays_close_to_float32(cls, dtype, error):
    model = filled(cls(SIZES).eval())
    image = make_input((1, 3, 64, 96))
    with torch.no_grad():
        expected = model(image)
        outputs = model.to(dtype)(image.to(dtype))
    for output, reference in zip(outputs, expected, strict=True):
        assert output.dtype == dtype
        assert relative_error(output, reference) <= error


@every_layout
def test_float64_is_computed_in_float64(cls, layout):
    model = filled(cls(SIZES, **layout).double().eval())
    image = make_input((1, 3, 40, 56)).double()
    with torch.no_grad():
        outputs = model(image)
        nudged = model(image + 1e-10 * torch.randn_like(image))
    for output, other in zip(outputs, nudged, strict=True):
        assert output.dtype == torch.float64
        assert 0 < relative_error(other, output) < 1e-8


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3), (2,), (0, 1)])
@every_backbone
def test_out_indices_choose_the_maps_and_leave_out_what_is_not_needed(cls, out_indices):
    everything = filled(cls(SIZES).eval())
    some = cls(SIZES, out_indices=out_indices).eval()
    kept = everything.state_dict()
    some.load_state_dict({name: kept[name] for name in some.state_dict()})
    image = make_input((1, 3, 64, 64))
    with torch.no_grad():
        all_outputs, outputs = everything(image), some(image)
    assert len(outputs) == len(out_indices)
    for i, output in zip(out_indices, outputs, strict=True):
        assert torch.equal(output, all_outputs[i])
    some.train()
    weighted_sum(some(make_input((2, 3, 64, 64)))).backward()
    assert all(p.grad is not None for p in some.parameters())


@every_arch
def test_every_parameter_gets_a_gradient_in_training(cls, arch):
    sizes = {**cls.arch_zoo[arch], **SIZES}
    model = cls(sizes, norm_cfg=dict(type='SyncBN')).train()
    for name, module in model.named_modules():
        if name.endswith('drop_path'):
            module.eval()  # a dropped branch has no gradient by design
    weighted_sum(model(make_input((2, 3, 64, 96)))).backward()
    without_effect = biases_before_batch_norms(model)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name not in without_effect:
            assert parameter.grad.abs().sum() > 0, name


def biases_before_batch_norms(model):
    """Names of biases that a batch norm in training takes away by construction."""
    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    pairs = zip(leaves, leaves[1:], strict=False)
    return {f'{n}.bias' for (n, _), (_, m) in pairs if isinstance(m, _BatchNorm)}


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('frozen_stages', [-1, 2])
@every_layout
def test_with_cp_changes_no_output_no_gradient_and_no_statistics(
    cls, layout, frozen_stages, autocast
):
    options = dict(drop_path_rate=0.5, frozen_stages=frozen_stages, **layout)
    state, expected = cls(SIZES, **options).state_dict(), None
    for with_cp in (False, True, *cls.with_cp_names):
        model = cls(SIZES, **options, with_cp=with_cp).train()
        model.load_state_dict(state)
        torch.manual_seed(3)  # the same branches are dropped
        image = make_input((2, 3, 45, 62)).requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            outputs = model(image)
        sum(out.square().sum() for out in outputs).backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        results = [*outputs, image.grad, *gradients, *model.buffers()]
        if expected is None:
            expected = results
        for result, value in zip(results, expected, strict=True):
            assert torch.equal(result, value), with_cp


@pytest.mark.parametrize('with_cp', [False, True])
@every_backbone
def test_pytorchs_flop_counter_counts_a_training_step(cls, with_cp):
    model = cls(SIZES, with_cp=with_cp)
    image = make_input((2, 3, 64, 64))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(image)
    with FlopCounterMode(display=False) as step:
        weighted_sum(model(image)).backward()
    assert step.get_total_flops() > 2 * forward.get_total_flops() > 0


@every_norm
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3, 4])
@every_backbone
def test_frozen_stages_get_no_gradient_and_compute_as_in_testing(
    cls, frozen_stages, norm
):
    model = cls(
        SIZES,
        norm_cfg=dict(type=norm),
        frozen_stages=frozen_stages,
        drop_path_rate=0.5,
    )
    stages = max(frozen_stages, 0)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    # What is needed for the first maps, and of the next only what lies before it.
    needed = names(cls(SIZES, out_indices=range(stages))) if stages else set()
    assert needed <= frozen
    if frozen_stages < 0 or stages == 4:
        assert frozen == needed
    else:
        rest = names(cls(SIZES, out_indices=range(stages + 1))) - needed
        assert frozen - needed < rest
        before = BEFORE_STAGE.get(cls.__name__)
        if before:
            expected = {name for name in rest if name.startswith(before[stages])}
            assert frozen - needed == expected != set()

    assert model.train() is model
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
    image = make_input((2, 3, 64, 64))
    with torch.no_grad():
        trained, tested = model(image)[:stages], model.eval()(image)[:stages]
    assert all(map(torch.equal, trained, tested))
    model.train()
    before = {n: m.running_mean.clone() for n, m in batch_norms(model).items()}
    loss = weighted_sum(model(image))
    if stages < 4:
        loss.backward()
    for name, module in batch_norms(model).items():
        is_frozen = f'{name}.weight' in frozen
        assert module.training != is_frozen, name
        assert torch.equal(module.running_mean, before[name]) == is_frozen, name
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@every_norm
@pytest.mark.parametrize('norm_eval', [True, False])
@every_backbone
def test_norm_eval_fixes_batch_statistics_but_not_weights(cls, norm_eval, norm):
    model = cls(SIZES, norm_cfg=dict(type=norm), norm_eval=norm_eval).train()
    norms = batch_norms(model).values()
    before = [module.running_mean.clone() for module in norms]
    assert before
    weighted_sum(model(make_input((2, 3, 64, 64)))).backward()
    for module, mean in zip(norms, before, strict=True):
        assert module.training != norm_eval
        assert torch.equal(module.running_mean, mean) == norm_eval
        assert module.weight.grad is not None


@every_backbone
def test_train_and_eval_return_the_module(cls):
    model = cls(SIZES)
    assert model.train() is model
    assert model.eval() is model
    assert not any(module.training for module in model.modules())


@every_layout
def test_gradients_have_the_layout_of_their_parameters(cls, layout):
    """Otherwise DistributedDataParallel warns and copies them in each step.

    Pruning and FSDP, among others, take contiguous parameters only.
    """
    model = cls(SIZES, **layout)
    weighted_sum(model(make_input((2, 3, 64, 64)))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name
        assert parameter.is_contiguous(), name


@every_backbone
def test_copies_and_state_dicts_give_the_same_outputs(cls):
    model = filled(cls(SIZES).eval())
    image = make_input((1, 3, 40, 56))
    with torch.no_grad():
        expected = model(image)  # fills the caches, which must not disturb copying
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = cls(SIZES).eval()
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        with torch.no_grad():
            outputs = twin(image)
        assert all(map(torch.equal, outputs, expected))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='x'), "arch is 'x'; give one of {zoo} or a dict"),
        (dict(arch=['t']), r"arch is \['t'\]; give one of"),
        (dict(arch=dict(depths=(1, 1, 1, 1))), r"lacks \['embed_dims', 'num_heads'\]"),
        (dict(arch={**SIZES, 'width': 3}), r"unknown keys \['width'\].*drop_path_rate"),
        (dict(arch={**SIZES, 'depths': (1, 1)}), 'depths.*give 4 whole numbers'),
        (dict(arch={**SIZES, 'depths': (1, 1, 0, 1)}), 'depths.*give 4 whole numbers'),
        (dict(arch={**SIZES, 'depths': 3}), 'depths.* is 3; give 4 whole numbers'),
        (dict(arch={**SIZES, 'num_heads': (1, 2, 5, 4)}), '24 channels for 5 heads; '),
        (dict(arch={**SIZES, 'drop_path_rate': None}), 'drop_path_rate is None'),
        (dict(out_indices=(0, 4)), r'out_indices is \(0, 4\)'),
        (dict(out_indices=()), r'out_indices is \(\)'),
        (dict(out_indices=(2, 1)), 'rising stage numbers'),
        (dict(out_indices=3), 'out_indices is 3'),
        (dict(out_indices=(True,)), 'out_indices is'),
        (dict(in_channels=0), 'in_channels is 0; give a whole number from 1'),
        (dict(drop_path_rate='a'), "drop_path_rate is 'a'"),
        (dict(drop_path_rate=1.0), 'drop_path_rate is 1.0'),
        (dict(frozen_stages=1.0), 'frozen_stages is 1.0'),
        (dict(frozen_stages=5), 'frozen_stages is 5'),
        (dict(frozen_stages=-2), 'frozen_stages is -2'),
        (dict(out_indices=(0, 1), frozen_stages=3), 'a number of stages up to 2'),
        (dict(norm_cfg=dict(type='NB')), r"norm_cfg is \{{'type': 'NB'\}}; give dict"),
        (dict(norm_cfg=None), r"norm_cfg is None; give dict\(type='BN'\)"),
        (dict(norm_cfg=dict()), r'norm_cfg is \{{\}}; give dict'),
        (dict(norm_cfg=dict(type='LN')), "norm_cfg is .*'LN'"),
        (dict(norm_cfg=dict(type='BN1d')), "norm_cfg is .*'BN1d'"),
        (dict(norm_cfg='BN'), "norm_cfg is 'BN'"),
        (dict(with_cp='all'), "with_cp is 'all'; give True"),
        (dict(out_channels_last=1), 'out_channels_last is 1; give True or False'),
    ],
)
@every_backbone
def test_wrong_values_get_a_readable_error(cls, options, message):
    message = message.format(zoo=', '.join(map(repr, cls.arch_zoo)))
    with pytest.raises(ValueError, match=message):
        cls(**{'arch': SIZES, **options})


@every_backbone
def test_a_misspelt_option_is_refused(cls):
    with pytest.raises(TypeError, match='drop_path'):
        cls(SIZES, drop_path=0.1)
