"""Clean files for one use, and files to publish."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint

from mmravlt.checkpoint import (
    CheckpointError,
    WrongWeightsError,
    convert_file,
    load_file,
    publish_file,
)
from mmravlt.models import RAVLT, L2ViT
from tests.processes import run_tool
from tests.release_weights import fill, name_in_model

ARCH = {
    'embed_dims': (8, 16, 24, 32),
    'depths': (1, 2, 1, 1),
    'num_heads': (1, 2, 3, 4),
}


def small(family):
    """A released file with a small backbone and a few of its other weights."""
    backbone = {n: tuple(v.shape) for n, v in RAVLT(ARCH).state_dict().items()}
    shapes = {
        **{n: s for n, s in backbone.items() if not n.startswith('extra_norms.')},
        'layers.0.RoPE.angle': (4,),
    }
    if family == 'classifier':
        ends = {'proj.weight': (6, 32, 1, 1), 'norm.weight': (6,), 'head.bias': (5,)}
        weights = fill({**shapes, **ends, 'head.weight': (5, 6, 1, 1)})
        return {'model': weights, 'optimizer': {'x': 1}, 'epoch': 299}
    shapes = {f'backbone.{name}': shape for name, shape in shapes.items()}
    ends = {
        'detector': {'neck.x.weight': (2, 2), 'rpn_head.rpn_cls.bias': (3,)},
        'segmentor': {'decode_head.conv_seg.bias': (3,)},
        'model': {'parts.weight': (3, 2)},
    }[family]
    meta = {'mmcv_version': '1.7.1', 'CLASSES': ('cat', 'dog'), 'PALETTE': [[1, 2, 3]]}
    return {'meta': meta, 'state_dict': fill({**shapes, **ends}), 'optimizer': {}}


@pytest.fixture
def source(tmp_path):
    def write(checkpoint):
        path = tmp_path / 'source.pth'
        torch.save(checkpoint, path)
        return str(path)

    return write


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize('family', ['classifier', 'detector', 'segmentor', 'model'])
def test_a_file_for_a_backbone_holds_it_and_nothing_else(family, source, tmp_path):
    checkpoint = small(family)
    target = str(tmp_path / 'backbone.pth')
    said = convert_file(source(checkpoint), target, 'backbone')
    written = torch.load(target, weights_only=True)
    assert set(written) == {'meta', 'state_dict'}
    weights = checkpoint.get('state_dict') or checkpoint['model']
    prefix = '' if family == 'classifier' else 'backbone.'
    assert_same(
        written['state_dict'],
        {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith((prefix + 'patch_embed.', prefix + 'layers.'))
            and not name.endswith('RoPE.angle')
        },
    )
    assert said.splitlines()[0].startswith(f'read {tmp_path}/source.pth (RAVLT with ')
    assert said.splitlines()[1].startswith(f'wrote {target} (RAVLT with ')
    left = {
        'classifier': 'proj, norm, head',
        'detector': 'neck, rpn_head',
        'segmentor': 'decode_head',
        'model': 'parts',
    }
    assert said.endswith(f'; left out: {left[family]})')

    model = RAVLT(ARCH, init_cfg={'type': 'Pretrained', 'checkpoint': target})
    model.init_weights()
    for name, value in written['state_dict'].items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_odd_values_in_a_file_are_no_obstacle(ending, source, tmp_path):
    if ending == 'safetensors':
        pytest.importorskip('safetensors')
    checkpoint = small('segmentor')
    checkpoint['state_dict']['decode_head.scale'] = 3
    palette = np.array([[1, 2, 3], [4, 5, 6]])
    dataset_meta = {'classes': ['cat', 'dog'], 'palette': palette}
    checkpoint['meta'] = {'mmengine_version': '0.10.7', 'dataset_meta': dataset_meta}
    target = str(tmp_path / f'clean.{ending}')
    said = convert_file(source(checkpoint), target)
    assert 'left out: decode_head.scale)' in said
    written = load_file(target)
    assert list(written['meta']['dataset_meta']['classes']) == ['cat', 'dog']
    assert written['meta']['dataset_meta']['palette'] == palette.tolist()
    assert 'decode_head.scale' not in written['state_dict']
    published = publish_file(str(tmp_path / 'source.pth'), str(tmp_path / 'odd.pth'))
    assert load_file(published)['state_dict']['decode_head.scale'] == 3


def test_classes_that_mmseg_could_not_draw_are_left_to_it(source, tmp_path):
    checkpoint = small('segmentor')
    del checkpoint['meta']['PALETTE']
    target = str(tmp_path / 'clean.pth')
    convert_file(source(checkpoint), target)
    assert 'dataset_meta' not in load_file(target)['meta']


@pytest.mark.parametrize('use', [None, 'own'])
@pytest.mark.parametrize('family', ['classifier', 'detector', 'segmentor'])
def test_a_file_for_a_whole_model_has_its_names_and_classes(
    family, use, source, tmp_path
):
    checkpoint = small(family)
    target = str(tmp_path / 'whole.pth')
    convert_file(source(checkpoint), target, family if use else None)
    written = torch.load(target, weights_only=True)
    weights = checkpoint.get('state_dict') or checkpoint['model']
    expected = {
        name_in_model(name, family): value.flatten(1)
        if name == 'head.weight'
        else value
        for name, value in weights.items()
        if not name.endswith('RoPE.angle')
    }
    assert_same(written['state_dict'], expected)
    classes = {'classes': ('cat', 'dog'), 'palette': [[1, 2, 3]]}
    assert written['meta'].get('dataset_meta') == (
        None if family == 'classifier' else classes
    )

    # Converted once more, nothing changes.
    again = str(tmp_path / 'again.pth')
    convert_file(target, again)
    assert_same(torch.load(again, weights_only=True)['state_dict'], expected)
    assert torch.load(again)['meta'] == written['meta']


def test_files_of_l2vit_are_written_for_a_backbone_and_a_whole_classifier(
    source, tmp_path
):
    shapes = {n: tuple(v.shape) for n, v in L2ViT(ARCH).state_dict().items()}
    shapes = {n: s for n, s in shapes.items() if not n.startswith('norm')}
    ends = {'norm.weight': (32,), 'norm.bias': (32,), 'head.weight': (5, 32)}
    weights = fill({**shapes, **ends, 'head.bias': (5,)})
    path = source({'model': weights, 'epoch': 299})

    whole = str(tmp_path / 'whole.pth')
    said = convert_file(path, whole)
    assert '(L2ViT with embed_dims (8, 16, 24, 32) and depths (1, 2, 1, 1) c' in said
    assert_same(
        torch.load(whole, weights_only=True)['state_dict'],
        {name_in_model(n, 'classifier', 'l2vit_t'): v for n, v in weights.items()},
    )
    bare = str(tmp_path / 'backbone.pth')
    said = convert_file(whole, bare, 'backbone')
    assert said.endswith('; left out: head)')
    model = L2ViT(ARCH, out_indices=(3,))
    model.load_state_dict(torch.load(bare, weights_only=True)['state_dict'])
    assert torch.equal(model.norm3.weight, weights['norm.weight'])


@pytest.mark.parametrize('averaged', [None, True, False])
def test_the_wanted_set_of_weights_is_written(averaged, source, tmp_path):
    checkpoint = small('classifier')
    checkpoint['model_ema'] = {
        name: value if name.endswith('angle') else value + 1
        for name, value in checkpoint['model'].items()
    }
    target = str(tmp_path / 'backbone.pth')
    said = convert_file(source(checkpoint), target, 'backbone', averaged)
    name = 'patch_embed.proj.0.weight'
    written = torch.load(target, weights_only=True)['state_dict'][name]
    key = 'model_ema' if averaged else 'model'
    assert torch.equal(written, checkpoint[key][name])
    assert f"of '{key}', not the" in said


def wrong_rope():
    checkpoint = small('classifier')
    checkpoint['model']['layers.0.RoPE.angle'] *= 1.1
    return checkpoint


@pytest.mark.parametrize(
    ('make', 'use', 'sentence'),
    [
        (lambda: {'state_dict': {'conv1.weight': torch.ones(1)}}, None, 'no RAVLT'),
        (lambda: {'epoch': 1}, None, 'it holds no weights'),
        (wrong_rope, None, 'other RoPE frequencies'),
        (
            lambda: small('detector'),
            'segmentor',
            'a detector, which gives no segmentor',
        ),
        (lambda: small('segmentor'), 'classifier', 'which gives no classifier'),
        (lambda: small('model'), None, 'say what it is for, one of backbone, '),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
    make, use, sentence, source, tmp_path
):
    path = source(make())
    with pytest.raises(WrongWeightsError, match=sentence) as caught:
        convert_file(path, str(tmp_path / 'target.pth'), use)
    assert path in str(caught.value) and '\n' not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ['source.pth']


def test_no_file_is_overwritten(source, tmp_path):
    path = source(small('classifier'))
    (tmp_path / 'other.pth').write_text('mine')
    (tmp_path / 'link.pth').symlink_to(path)
    before = Path(path).read_bytes()
    for name, words in (
        ('other.pth', 'exists already'),
        ('source.pth', 'is the file to read'),
        ('link.pth', 'is the file to read'),
        ('absent/new.pth', 'there is no folder'),
    ):
        with pytest.raises(CheckpointError, match=words):
            convert_file(path, str(tmp_path / name), 'backbone')
    assert (tmp_path / 'other.pth').read_text() == 'mine'
    assert Path(path).read_bytes() == before


def test_an_interrupted_write_leaves_nothing(source, tmp_path, monkeypatch):
    path = source(small('classifier'))

    def save(checkpoint, file):
        file.write(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(CheckpointError, match='could not be written: No space left'):
        convert_file(path, str(tmp_path / 'target.pth'))
    assert [p.name for p in tmp_path.iterdir()] == ['source.pth']


# --- safetensors ---


def test_a_safetensors_file_is_written_and_loaded_like_any_other(source, tmp_path):
    pytest.importorskip('safetensors')
    checkpoint = small('detector')
    for name, value in checkpoint['state_dict'].items():
        if value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
            checkpoint['state_dict'][name] = value
    target = str(tmp_path / 'detector.safetensors')
    convert_file(source(checkpoint), target)
    loaded = load_file(target)
    expected = {n: v for n, v in checkpoint['state_dict'].items() if 'RoPE' not in n}
    assert_same(loaded['state_dict'], expected)
    assert loaded['meta']['dataset_meta']['classes'] == ['cat', 'dog']

    init_cfg = {'type': 'Pretrained', 'checkpoint': target, 'prefix': 'backbone.'}
    model = RAVLT(ARCH, init_cfg=init_cfg)
    model.init_weights()
    name = 'layers.1.blocks.1.ffn.fc1.weight'
    assert torch.equal(model.state_dict()[name], expected[f'backbone.{name}'])
    load_checkpoint(RAVLT(ARCH), target)  # and without the prefix


def test_without_the_library_a_sentence_says_how_to_get_it(
    source, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    target = tmp_path / 'backbone.safetensors'
    with pytest.raises(CheckpointError, match='pip install safetensors') as caught:
        convert_file(source(small('classifier')), str(target), 'backbone')
    assert '\n' not in str(caught.value) and not target.exists()

    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    target.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))
    with pytest.raises(CheckpointError, match='pip install safetensors') as caught:
        load_file(target)
    assert str(target) in str(caught.value)


@pytest.mark.parametrize('keep', [3, 9, 20, -1])
def test_half_a_safetensors_file_is_called_incomplete(keep, tmp_path):
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    whole = len(header).to_bytes(8, 'little') + header + bytes(4)
    path = tmp_path / 'half.safetensors'
    path.write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match='only the beginning of one'):
        load_file(path)


# --- publishing ---


def test_a_published_file_holds_the_weights_and_is_named_by_its_hash(source, tmp_path):
    weights = {'backbone.conv.weight': torch.ones(2, 2), 'head.bias': torch.ones(3)}
    meta = {'mmengine_version': '0.10.7', 'dataset_meta': {'classes': ('cat',)}}
    checkpoint = {
        'meta': meta,
        'state_dict': weights,
        'ema_state_dict': {f'module.{n}': v + 1 for n, v in weights.items()},
        'optimizer': {'state': {0: torch.ones(100)}},
        'param_schedulers': [{'last_step': 3}],
        'message_hub': {'loss': np.float64(0.5)},
    }
    path = Path(publish_file(source(checkpoint), str(tmp_path / 'model.pth')))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'model-{digest[:8]}.pth'
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / 'source.pth'])
    written = torch.load(path, weights_only=True)
    assert set(written) == {'meta', 'state_dict'} and written['meta'] == meta
    assert_same(written['state_dict'], weights)


def test_publishing_keeps_the_names_of_a_release(source, tmp_path):
    checkpoint = small('classifier')
    path = publish_file(source(checkpoint), str(tmp_path / 'model.pth'))
    written = torch.load(path, weights_only=True)
    assert_same(written['state_dict'], checkpoint['model'])


def test_published_under_its_own_name_the_source_stays(source, tmp_path):
    path = source(small('detector'))
    before = Path(path).read_bytes()
    assert publish_file(path, path) != path
    assert Path(path).read_bytes() == before


# --- the command lines ---


@pytest.mark.parametrize(
    ('tool', 'target', 'expected'),
    [
        ('convert_checkpoint.py', 'new.pth', 'wrote new.pth (RAVLT with '),
        (
            'convert_checkpoint.py',
            'source.pth',
            'error: source.pth is the file to read',
        ),
        ('publish_model.py', 'new.pth', 'wrote new-'),
        ('publish_model.py', 'new.pt', 'error: new.pt: the name of a published file'),
    ],
)
def test_the_tools_say_what_they_did_or_why_not(
    tool, target, expected, source, tmp_path
):
    source(small('classifier'))
    done = run_tool(tool, 'source.pth', target, cwd=tmp_path, check=False)
    is_error = expected.startswith('error: ')
    assert done.returncode == is_error, done.stderr
    lines = (done.stderr if is_error else done.stdout).splitlines()
    assert any(line.startswith(expected) for line in lines)
    assert 'Traceback' not in done.stderr
