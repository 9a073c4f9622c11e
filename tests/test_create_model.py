"""Models by name, with their weights. This also runs where OpenMMLab is missing."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import mmravlt
from mmravlt.checkpoint import (
    DownloadError,
    MissingCheckpointError,
    WrongWeightsError,
    load_weights,
)
from mmravlt.models import RAVLT, L2ViT
from mmravlt.ops import rope2d_angles

from .golden_fill import fill_state_dict, make_input, relative_error

DATA = Path(__file__).parent / 'data'
GOLDEN = {
    'ravlt_t': 'classifier_t_llvv_2x3x64x64_seed0.npz',
    'l2vit_t': 'l2vit_classifier_t_2x3x64x64_seed0.npz',
}


def release_name(name):
    """A weight of a classifier, in the spelling of either release."""
    for ours, theirs in (('backbone.norm3.', 'norm.'), ('head.fc.', 'head.')):
        name = name.replace(ours, theirs)
    return name.removeprefix('backbone.').removeprefix('neck.')


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """The file of a released classifier, with the weights of the golden files."""
    files = {}

    def write(name):
        if name not in files:
            with torch.device('meta'):
                model = mmravlt.create_model(name, num_classes=1000)
            weights = {release_name(n): v for n, v in model.state_dict().items()}
            if name.startswith('ravlt'):  # whose last layer is a 1×1 convolution
                weights['head.weight'] = weights['head.weight'][:, :, None, None]
            files[name] = tmp_path_factory.mktemp('released') / f'{name}.pth'
            torch.save({'model': fill_state_dict(weights, 0)}, files[name])
        return files[name]

    return write


def test_names_are_listed_from_small_to_large():
    assert mmravlt.list_models() == [
        *('ravlt_t', 'ravlt_s', 'ravlt_b', 'ravlt_l'),
        *('l2vit_t', 'l2vit_s', 'l2vit_b'),
    ]


@pytest.mark.parametrize('name', GOLDEN)
def test_released_classifier_computes_what_the_release_computes(name, released):
    golden = np.load(DATA / GOLDEN[name])
    meta = json.loads(str(golden['meta']))
    model = mmravlt.create_model(name, released(name), num_classes=1000).eval()
    with torch.no_grad():
        logits = model(make_input(meta['shape'], meta['seed']))
    assert relative_error(logits, golden['out0']) <= 1e-5


def test_optimized_classifier_computes_the_same(released):
    model = mmravlt.create_model('ravlt_t', released('ravlt_t'), num_classes=1000)
    model.eval()
    x = make_input((1, 3, 64, 64))
    with torch.no_grad():
        expected = model(x)
        assert relative_error(mmravlt.optimize_for_inference(model)(x), expected) < 1e-4


def test_a_backbone_takes_its_part_of_a_classifier_and_says_so(released, caplog):
    caplog.set_level(logging.INFO)
    model = mmravlt.create_model('ravlt_t', released('ravlt_t'), out_indices=(1, 3))
    weights = torch.load(released('ravlt_t'))['model']
    name = 'layers.2.blocks.5.attn.qkvo.weight'
    torch.testing.assert_close(model.state_dict()[name], weights[name])
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert 'ravlt_t.pth (RAVLT-T classifier' in record.message
    assert 'new, as expected: extra_norms' in record.message


def test_another_number_of_classes_begins_with_a_new_head_and_a_warning(
    released, caplog
):
    mmravlt.create_model('l2vit_t', released('l2vit_t'), num_classes=7)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'head.fc.weight: 1000×768 in the file, 7×768 here' in record.message


def test_init_cfg_loads_a_file(released):
    init_cfg = dict(type='Pretrained', checkpoint=str(released('l2vit_t')))
    model = L2ViT('t', init_cfg=init_cfg)
    model.init_weights()
    weights = torch.load(released('l2vit_t'))['model']
    torch.testing.assert_close(model.norm3.weight.data, weights['norm.weight'])


def test_options_reach_the_backbone():
    with torch.device('meta'):
        model = mmravlt.create_model(
            'ravlt_s', out_indices=(2,), drop_path_rate=0.5, with_cp='selective'
        )
        classifier = mmravlt.create_model('l2vit_s', num_classes=3, window_size=12)
    assert isinstance(model, RAVLT)
    assert (model.arch, model.out_indices) == ('s', (2,))
    assert model.drop_path_rates[-1][-1] == pytest.approx(0.5 * 16 / 19)
    assert model.layers[0].with_cp == 'selective'
    assert classifier.backbone.stages[0][0].attn.window_size == 12
    assert classifier.head.fc.out_features == 3


@pytest.mark.parametrize(
    'error,arguments,said',
    [
        (ValueError, dict(name='ravlt_x'), "name is 'ravlt_x'.*'ravlt_t', 'ravlt_s'"),
        (ValueError, dict(name='ravlt-t'), "did you mean 'ravlt_t'"),
        (ValueError, dict(name=None), 'name is None; give one of'),
        (TypeError, dict(drop_path=0.1), "'drop_path'.*mean 'drop_path_rate'"),
        (TypeError, dict(arch='s'), "'arch' is no option of ravlt_t as a backbone"),
        (TypeError, dict(num_classes=2, out_indices=(3,)), "'out_indices'.*classifier"),
        (ValueError, dict(num_classes=0), 'num_classes is 0; give'),
        (ValueError, dict(num_classes='ten'), "num_classes is 'ten'; give"),
        (ValueError, dict(out_indices=(4,)), r'out_indices is \(4,\)'),
        (MissingCheckpointError, dict(checkpoint='no/file.pth'), 'no/file.pth can not'),
    ],
)
def test_bad_input_is_refused_with_one_sentence(error, arguments, said):
    with pytest.raises(error, match=said) as caught, torch.device('meta'):
        mmravlt.create_model(**{'name': 'ravlt_t', **arguments})
    assert '\n' not in str(caught.value)


def test_weights_of_another_model_are_refused(released):
    with pytest.raises(WrongWeightsError, match='are of L2ViT-T, but .* is RAVLT-T'):
        mmravlt.create_model('ravlt_t', released('l2vit_t'))


def test_foreign_rope_frequencies_are_refused_and_change_nothing(tmp_path):
    model = RAVLT('t', out_indices=(0,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    angle = 2 * rope2d_angles(64, 'cpu')
    weights = {n: torch.zeros_like(v) for n, v in before.items()}
    torch.save({**weights, 'layers.0.RoPE.angle': angle}, tmp_path / 'x.pth')
    with pytest.raises(WrongWeightsError, match='x.pth cannot be used.*frequencies'):
        load_weights(model, tmp_path / 'x.pth')
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_failed_download_names_the_address_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'http://127.0.0.1:1/ravlt.pth'
    place = tmp_path / 'hub/checkpoints/ravlt.pth'
    with pytest.raises(DownloadError, match=f'{url} could not .* {place} by hand'):
        mmravlt.create_model('ravlt_t', url)


def test_true_takes_the_released_file_out_of_the_cache(tmp_path, monkeypatch, released):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    (folder / 'RAVLT_T.pth').symlink_to(released('ravlt_t'))
    model = mmravlt.create_model('ravlt_t', checkpoint=True, out_indices=(0,))
    weights = torch.load(released('ravlt_t'))['model']
    torch.testing.assert_close(
        model.patch_embed.proj[0].weight.data, weights['patch_embed.proj.0.weight']
    )
