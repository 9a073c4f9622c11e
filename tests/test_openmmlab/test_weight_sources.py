"""Weights know their file on each way that MMEngine has, and nothing remembers it."""

import copy
from collections import OrderedDict

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint, load_state_dict
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mmravlt.checkpoint import load_file
from mmravlt.checkpoint.contents import read_contents
from mmravlt.models import RAVLT
from mmravlt.openmmlab import weight_remapping
from mmravlt.openmmlab.weight_remapping import needs_all_weights
from tests.test_openmmlab.helpers import TINY, assert_arrived


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = RAVLT(TINY)


@pytest.fixture
def source():
    return RAVLT(TINY).state_dict()


def below(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def pretrained(path, prefix=None):
    init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    model = RAVLT(TINY, init_cfg=init_cfg)
    model.init_weights()
    return model


def loaded(path):
    model = RAVLT(TINY)
    load_checkpoint(model, path)
    return model


def revised(path):
    model = RAVLT(TINY)
    load_checkpoint(model, path, revise_keys=[(r'^teacher\.', '')])
    return model


def inferencer(path):
    model = Model()
    checkpoint = mmengine_checkpoint._load_checkpoint(path, map_location='cpu')
    mmengine_checkpoint._load_checkpoint_to_model(model, checkpoint)
    return model.backbone


def copied(path):
    model = RAVLT(TINY)
    checkpoint = CheckpointLoader.load_checkpoint(path)
    load_state_dict(model, copy.deepcopy(checkpoint['state_dict']))
    return model


WAYS = {
    'init_cfg': (pretrained, ''),
    'init_cfg with prefix': (lambda path: pretrained(path, 'backbone.'), 'backbone.'),
    'init_cfg with prefix, release': (lambda path: pretrained(path, 'backbone'), ''),
    'init_cfg with prefix of a wrapper': (
        lambda path: pretrained(path, 'a.backbone'),
        'a.backbone.',
    ),
    'load_checkpoint': (loaded, 'module.'),
    'revise_keys': (revised, 'teacher.'),
    'inferencer': (inferencer, 'backbone.'),
    'a copy': (copied, ''),
}


@pytest.mark.parametrize('layout', ['state_dict', 'model', 'plain'])
@pytest.mark.parametrize('way', WAYS)
def test_the_report_names_the_file_whose_contents_are_read_once(
    way, layout, source, save, reports, monkeypatch
):
    calls = []

    def counted(*args):
        calls.append(args)
        return read_contents(*args)

    for place in ('mmravlt.checkpoint.weights', weight_remapping.__name__):
        monkeypatch.setattr(f'{place}.read_contents', counted)
    load, prefix = WAYS[way]
    weights = below(prefix, source)
    path = save(weights if layout == 'plain' else {layout: weights})
    assert_arrived(source, load(path))
    ((_, text),) = reports
    written = "in the release's layout" if layout == 'model' else 'a state dict'
    assert text.startswith(f'{path} (RAVLT with embed_dims (8, 16, 24, 32) ')
    assert f'backbone, {written}): loaded 130 of the 130' in text
    assert len(calls) == 1


def test_two_files_with_the_same_weights_keep_their_names(source, save, tmp_path):
    first = str(tmp_path / 'first.pth')
    torch.save({'state_dict': source}, first)
    both = [CheckpointLoader.load_checkpoint(p) for p in (first, save(source))]
    names = [one['state_dict']._metadata.source.file for one in both]
    assert names == [first, str(tmp_path / 'weights.pth')]


def test_weights_that_were_changed_on_the_way_arrive_as_they_are(source, save):
    part = mmengine_checkpoint._load_checkpoint_with_prefix(
        'backbone.', save({'model': source})
    )
    name = 'patch_embed.proj.0.weight'
    part[name] = torch.full_like(part[name], 7)
    model = RAVLT(TINY)
    load_state_dict(model, part)
    assert (model.state_dict()[name] == 7).all()


def test_without_a_file_the_weights_are_called_given(source, reports):
    load_state_dict(RAVLT(TINY), source)
    assert reports[0][1].startswith('the given weights (')


@pytest.mark.parametrize('averaged', ['MMEngine', 'DeiT'])
def test_of_a_file_with_an_average_the_report_says_what_was_taken(
    averaged, source, save, reports
):
    other = RAVLT(TINY).state_dict()
    file, words = {
        'MMEngine': (
            {'state_dict': source, 'ema_state_dict': below('module.', other)},
            "the moving average (EMA) of 'state_dict', not the raw weights of "
            "'ema_state_dict'",
        ),
        'DeiT': (
            {'model': source, 'model_ema': other},
            "the raw weights of 'model', not the moving average (EMA) of 'model_ema'",
        ),
    }[averaged]
    path = save(file)
    for load in (loaded, copied, pretrained, lambda p: pretrained(p, 'backbone.')):
        reports.clear()
        assert_arrived(source, load(path))
        ((_, text),) = reports
        assert words in text


def test_a_file_written_from_what_was_read_has_no_trace_of_ours(source, save, tmp_path):
    read = CheckpointLoader.load_checkpoint(save({'state_dict': source}))
    again = tmp_path / 'again.pth'
    torch.save(read, again)
    assert b'mmravlt' not in again.read_bytes()
    metadata = load_file(again)['state_dict']._metadata
    assert type(metadata) is OrderedDict and metadata == source._metadata


def test_all_weights_are_needed_within_the_block_only(source):
    del source['patch_embed.proj.0.bias']
    refused = pytest.raises(RuntimeError, match='does not give this model patch_embed')
    with needs_all_weights():
        with needs_all_weights(), refused:
            load_state_dict(RAVLT(TINY), source)
        with refused:
            load_state_dict(RAVLT(TINY), source)
    load_state_dict(RAVLT(TINY), source)
