"""The configs of the paper's Table 9: a row each, for each of the three tasks."""

import pytest

from mmravlt.analysis.flops import measure, total
from mmravlt.models import RAVLT
from mmravlt.models.layers import RALAttention

from .recipes import build, read

# What of a block differs from the release: has `pos`, convolution of the attention,
# hidden channels of the FFN for each of C; κ and weighting in stages of RALA; gate.
RELEASE = (True, 'qkvo', 3.5, 'elu+1', True, 'projection')
ROWS = {
    'without_kv_augmentation': (True, 'qkvo', 3.5, 'elu+1', False, 'projection'),
    'without_output_augmentation': (True, 'qkv', 4.0, 'elu+1', True, None),
    'without_cpe': (False, 'qkvo', 3.5, 'elu+1', True, 'projection'),
    'phi_identity': (True, 'qkv', 4.0, 'elu+1', True, 'identity'),
    'phi_tanh': (True, 'qkv', 4.0, 'elu+1', True, 'tanh'),
    'kappa_relu': (True, 'qkvo', 3.5, 'relu', True, 'projection'),
    'kappa_softmax': (True, 'qkvo', 3.5, 'softmax', True, 'projection'),
}
LEAVES = {
    'mmpretrain': 'ravlt_t_{}in1k',
    'mmdet': 'mask_rcnn_ravlt_t_{}1x',
    'mmseg': 'semantic_fpn_ravlt_t_{}1x',
}
every_row = pytest.mark.parametrize('row', ROWS)
every_library = pytest.mark.parametrize('library', LEAVES)


def leaf(library, row=None):
    """The config of a row; None is the release."""
    if row is None:
        return read(f'{library}/{LEAVES[library].format("")}')
    return read(f'{library}/ablation/{LEAVES[library].format(row + "_")}')


def description(block):
    """As in ROWS, without κ and weighting where there is no RALA."""
    attention = block.attn
    hidden, channels = block.ffn.fc1.weight.shape[:2]
    names = {name.partition('.')[0] for name, _ in block.named_parameters()}
    convolutions = [n for n, _ in attention.named_children() if n.startswith('qkv')]
    assert len(convolutions) == 1
    is_rala = isinstance(attention, RALAttention)
    return (
        'pos' in names,
        convolutions[0],
        hidden / channels,
        attention.kappa if is_rala else None,
        attention.kv_augmentation if is_rala else None,
        attention.phi if attention.output_augmentation else None,
    )


@every_library
@every_row
def test_every_leaf_builds_what_its_name_says_in_all_blocks(library, row):
    stages = build(leaf(library, row)).backbone.layers
    assert [len(stage.blocks) for stage in stages] == [2, 2, 6, 2]
    expected = ROWS[row]
    without_rala = (*expected[:3], None, None, expected[5])
    for i, stage in enumerate(stages):
        for block in stage.blocks:
            assert description(block) == (expected if i < 2 else without_rala)


@every_library
def test_the_rows_are_compared_with_the_release(library):
    block = build(leaf(library)).backbone.layers[0].blocks[0]
    assert description(block) == RELEASE


@every_library
@every_row
def test_every_leaf_trains_as_the_release_but_for_its_start(library, row):
    cfg, released = (leaf(library, which).to_dict() for which in (row, None))
    for one in (cfg, released):
        for name in ('init_cfg', *leaf(library, row).ablation):
            one['model']['backbone'].pop(name, None)
        for name in ('ablation', 'init_cfg', 'checkpoint'):
            one.pop(name, None)
    assert cfg == released


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
@every_row
def test_detectors_and_segmentors_start_from_their_own_classifier(library, row):
    folder = f'work_dirs/ravlt_t_{row}_in1k'  # where MMEngine puts it
    last = leaf('mmpretrain', row).train_cfg.max_epochs
    assert leaf(library, row).model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=f'{folder}/epoch_{last}.pth'
    )


def test_they_never_start_from_random_weights_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init_cfg = leaf('mmdet', 'without_cpe').model.backbone.init_cfg
    dims = dict(embed_dims=(4, 4, 4, 4), depths=(1,) * 4, num_heads=(1,) * 4)
    model = RAVLT(dims, cpe=False, init_cfg=init_cfg)
    with pytest.raises(FileNotFoundError, match='without_cpe_in1k/epoch_300.pth'):
        model.init_weights()


@every_row
def test_every_row_keeps_parameters_and_multiply_adds_of_table_9(row):
    cost = total(measure(leaf('mmpretrain', row)))
    assert round(cost.params / 1e6) == 15
    assert round(cost.layers / 1e9, 1) == 2.4
