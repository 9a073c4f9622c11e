"""Weights of a file or an address arrive in a module, with torch alone."""

import logging

import pytest
import torch
from torch import nn

from mmravlt import checkpoint
from mmravlt.checkpoint import (
    MissingCheckpointError,
    UnsafeCheckpointError,
    WrongWeightsError,
    load_weights,
    read_contents,
)
from mmravlt.models import RAVLT, L2ViT
from mmravlt.ops import rope2d_angles

TINY = {'embed_dims': (8, 16, 24, 32), 'depths': (1,) * 4, 'num_heads': (1, 2, 3, 4)}


class Classifier(nn.Module):
    """Its parts are called as those of mmpretrain's classifiers."""

    def __init__(self):
        super().__init__()
        self.backbone = RAVLT(TINY)
        self.head = nn.ModuleDict({'fc': nn.Linear(32, 2)})


def release():
    """A released classifier, with the frequencies that a model derives."""
    weights = {
        name: torch.randn(value.shape)
        for name, value in RAVLT(TINY).state_dict().items()
        if value.is_floating_point() and not name.startswith('extra_norms.')
    }
    angles = {'layers.0.RoPE.angle': rope2d_angles(8)}
    return {**weights, **angles, 'head.weight': torch.randn(2, 32, 1, 1)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'weights.pth'


@pytest.fixture
def unchanged():
    """A backbone that must stay as it is."""
    model = RAVLT(TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield model
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize('wrap', [lambda w: {'model': w, 'epoch': 3}, dict])
def test_a_released_file_arrives_and_the_report_says_so(path, caplog, wrap):
    weights = release()
    torch.save(wrap(weights), path)
    model = RAVLT(TINY)
    with caplog.at_level(logging.INFO, 'mmravlt.checkpoint'):
        report = load_weights(model, path)
    own = model.state_dict()
    for name in weights.keys() & own.keys():
        assert torch.equal(own[name], weights[name]), name
    assert report.new == report.output_norms and len(report.new) == 8
    assert report.unused == ['head.weight'] and report.level == logging.INFO
    (record,) = caplog.records
    assert record.getMessage() == str(report) and str(path) in str(report)


def test_a_classifier_gets_its_head(path):
    weights = release()
    torch.save({'model': weights}, path)
    model = Classifier()
    report = load_weights(model, str(path))
    assert report.new == [*report.output_norms, 'head.fc.bias']
    head = weights['head.weight'].flatten(1)
    assert torch.equal(model.head['fc'].weight, head)


def test_what_was_read_is_taken_too():
    model = RAVLT(TINY)
    source = RAVLT(TINY).state_dict()
    assert not load_weights(model, source, strict=True, needs_all=True).differs
    torch.testing.assert_close(dict(model.state_dict()), dict(source))


def test_an_address_is_downloaded_once(path, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    fetched = []

    def fetch(url, place, **kwargs):
        fetched.append(url)
        torch.save({'model': release()}, place)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    for _ in range(2):
        report = load_weights(RAVLT(TINY), 'https://host/a.pth')
    assert fetched == ['https://host/a.pth'] and report.file == fetched[0]
    assert [p.name for p in tmp_path.glob('hub/checkpoints/*')] == ['a.pth']


@pytest.mark.parametrize('averaged', [True, False])
def test_of_two_sets_of_weights_the_wanted_one_is_taken(averaged):
    first, second = RAVLT(TINY).state_dict(), RAVLT(TINY).state_dict()
    model = RAVLT(TINY)
    load_weights(model, {'model': first, 'model_ema': second}, averaged=averaged)
    expected = second if averaged else first
    torch.testing.assert_close(dict(model.state_dict()), dict(expected))


def another_size():
    return RAVLT({**TINY, 'depths': (1, 2, 1, 1)}).state_dict()


def other_frequencies():
    return {**release(), 'layers.0.RoPE.angle': rope2d_angles(8) * 1.1}


def other_heads():
    return {**release(), 'layers.0.RoPE.angle': rope2d_angles(4)}


@pytest.mark.parametrize(
    ('make', 'options', 'said'),
    [
        (another_size, {}, r'depths \(1, 2, 1, 1\), but this model is RAVLT'),
        (lambda: L2ViT('t').state_dict(), {}, 'are of L2ViT-T, but this model'),
        (other_frequencies, {}, r"'layers\.0\.RoPE\.angle' .* other RoPE frequencies"),
        (other_heads, {}, r"'layers\.0\.RoPE\.angle' .* other RoPE frequencies"),
        (lambda: {'x.weight': torch.ones(2)}, {}, 'nothing in .* for this RAVLT'),
        (dict, {}, 'holds no weights'),
        (release, {'strict': True}, 'exact match'),
        (release, {'needs_all': True}, 'does not give this model extra_norms'),
    ],
    ids=[
        *('size', 'family', 'frequencies', 'heads', 'foreign', 'empty'),
        *('strict', 'needs_all'),
    ],
)
def test_other_weights_are_refused_by_name_and_change_nothing(
    make, options, said, path, unchanged
):
    torch.save(make(), path)
    with pytest.raises(WrongWeightsError, match=said) as caught:
        load_weights(unchanged, path, **options)
    assert str(path) in str(caught.value)


def test_a_missing_or_unsafe_file_is_named(path, unchanged):
    with pytest.raises(MissingCheckpointError, match='weights.pth can not be found'):
        load_weights(unchanged, path)
    torch.save({'x': Classifier()}, path)
    with pytest.raises(UnsafeCheckpointError, match='weights.pth was not loaded'):
        load_weights(unchanged, path)


def test_a_module_without_our_backbone_is_sent_elsewhere():
    said = 'not loaded because a Linear is no RAVLT or L2ViT and has none as'
    with pytest.raises(WrongWeightsError, match=said):
        load_weights(nn.Linear(2, 2), {})


def test_the_old_name_of_remap_warns_once_and_works():
    model = RAVLT(TINY)
    contents = read_contents(model.state_dict())
    shapes = {name: tuple(v.shape) for name, v in model.state_dict().items()}
    with pytest.warns(FutureWarning, match='fit is called remap') as caught:
        weights, report = checkpoint.fit(contents, shapes)
    assert len(caught) == 1
    assert weights.keys() == shapes.keys() and not report.differs
