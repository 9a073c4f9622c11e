"""Sizes and costs are those of the paper and of the authors' release."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger

import mmravlt
from mmravlt.analysis import flops
from mmravlt.analysis.flops import (
    FlopsError,
    count_multiply_adds,
    measure_with_rala,
    total,
)
from mmravlt.ops import rala, rope2d_table

from ..test_model_index import MODELS

ROOT = Path(mmravlt.__file__).parents[1]
LEAVES = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('configs/mm*/*ravlt_*.py'))
OF_THE_PAPER = [leaf for leaf in LEAVES if 'panoptic' not in leaf]

# Tables 3 to 7 of the paper: parameters (M), FLOPs (G).
# fmt: off
PAPER = {
    '': dict(t=(15, 2.4), s=(26, 4.6), b=(48, 9.9), l=(95, 16.0)),
    'retinanet': dict(t=(24, 201), s=(34, 244), b=(57, 353), l=(104, 482)),
    'mask_rcnn': dict(t=(33, 219), s=(44, 262), b=(67, 372), l=(114, 501)),
    'cascade_mask_rcnn': dict(s=(82, 741), b=(105, 851), l=(152, 979)),
    'semantic_fpn': dict(t=(18, 136), s=(28, 180), b=(51, 292), l=(98, 424)),
    'upernet': dict(s=(55, 937), b=(77, 1050), l=(125, 1182)),
}
# Measured on the authors' release, in G, with attention products, normalisation
# and resizing: as released, and with linear attention in all stages.
RELEASE = {
    '': dict(t=(2.63, 2.55), s=(4.90, 4.75), b=(10.62, 10.38), l=(17.26, 16.83)),
    'retinanet': dict(t=(253, 203), s=(342, 248), b=(514, 363), l=(772, 495)),
    'mask_rcnn': dict(t=(272, 222), s=(360, 267), b=(533, 382), l=(791, 514)),
}
# fmt: on


# Of L2ViT's paper: parameters (M), FLOPs (G), which count attention products too.
L2VIT_PAPER = dict(t=(28.6, 4.7), s=(50.2, 9.0), b=(88.6, 15.9))
L2VIT_LEAVES = sorted(
    str(p.relative_to(ROOT)) for p in ROOT.glob('configs/mm*/*l2vit_*.py')
)


measured = {}


def measure(cfg, shape=None, count=flops.measure):
    """``flops.measure``, which takes a second or two for each model, once for each."""
    parts = (cfg.get(name) for name in ('default_scope', 'model', 'data_preprocessor'))
    key = str((*parts, shape))
    if key not in measured:
        measured[key] = count(cfg, shape)
    return measured[key]


@pytest.fixture(autouse=True)
def measure_once(monkeypatch):
    monkeypatch.setattr(flops, 'measure', measure)  # for the tool, too


def split(leaf):
    """Kind and variant of a leaf: 'mask_rcnn' and 's', or '' for a classifier."""
    kind, arch = re.match(r'(.*?)_?ravlt_([tsbl])_', Path(leaf).name).groups()
    return kind, arch


def read(leaf):
    return Config.fromfile(ROOT / leaf)


def test_every_model_of_the_paper_has_a_leaf():
    assert {split(leaf) for leaf in OF_THE_PAPER} == {
        (kind, arch) for kind, sizes in PAPER.items() for arch in sizes
    }


@pytest.mark.parametrize('leaf', LEAVES)
def test_sizes_and_costs_are_those_of_the_paper_and_of_the_model_index(leaf):
    kind, arch = split(leaf)
    whole = total(measure(read(leaf)))
    if leaf in OF_THE_PAPER:
        params, flops = PAPER[kind][arch]
        assert whole.params / 1e6 == pytest.approx(params, abs=0.6)
        assert whole.layers / 1e9 == pytest.approx(flops, rel=0.007 if kind else 0.025)
    metadata = MODELS[Path(leaf).stem].metadata
    assert (metadata.parameters, metadata.flops) == (whole.params, whole.layers)


@pytest.mark.parametrize('arch', L2VIT_PAPER)
def test_sizes_and_costs_of_l2vit_are_those_of_its_paper(arch):
    params, flops = L2VIT_PAPER[arch]
    whole = total(measure(read(f'configs/mmpretrain/l2vit_{arch}_in1k.py')))
    assert round(whole.params / 1e6, 1) == params
    assert round(whole.full / 1e9, 1) == flops
    assert round(whole.layers / 1e9, 1) < flops  # the other convention


@pytest.mark.parametrize('leaf', L2VIT_LEAVES)
def test_the_model_index_has_the_sizes_and_costs_of_l2vit(leaf):
    cfg = read(leaf)
    whole = total(measure(cfg))
    metadata = MODELS[Path(leaf).stem].metadata
    assert (metadata.parameters, metadata.flops) == (whole.params, whole.layers)
    assert measure_with_rala(cfg) is None


@pytest.mark.parametrize(
    'kind,arch', [(kind, arch) for kind, sizes in RELEASE.items() for arch in sizes]
)
def test_costs_with_attention_products_are_those_of_the_release(kind, arch):
    leaf = next(leaf for leaf in LEAVES if split(leaf) == (kind, arch))
    released, linear = RELEASE[kind][arch]
    cfg = read(leaf)
    # Detectors to the printed precision. Classifiers to one unit of the last
    # digit: the release takes a mean where RALA here has a product (sum of a k).
    tolerance = 0.5 if kind else 0.01
    assert total(measure(cfg)).full / 1e9 == pytest.approx(released, abs=tolerance)
    with_rala = total(measure_with_rala(cfg)).full / 1e9
    assert with_rala == pytest.approx(linear, abs=tolerance)


def test_softmax_attention_counts_like_its_two_products():
    q, k, v = (torch.empty(2, 3, 50, 16, device='meta') for _ in range(3))
    _, layers, fused = count_multiply_adds(
        lambda: F.scaled_dot_product_attention(q, k, v)
    )
    _, _, explicit = count_multiply_adds(lambda: (q @ k.mT / 4).softmax(-1) @ v)
    assert layers == 0
    assert fused == explicit == 2 * (2 * 3 * 50 * 50 * 16)


def test_every_product_in_rala_is_counted():
    heads, n, d = 3, 50, 16
    q, k, v = (torch.empty(1, heads, n, d, device='meta') for _ in range(3))
    table = rope2d_table(5, 10, d, q.device)
    _, layers, full = count_multiply_adds(lambda: rala(q, k, v, table))
    large = 2 * heads * n * d * d  # k'v and q(k'v)
    assert layers == 0
    # With the global query, for the sum of keys (or their mean, which costs no
    # product), for the denominator: N·d each.
    assert full - large in (2 * heads * n * d, 3 * heads * n * d)


def test_layers_normalisation_and_resizing_are_told_apart():
    with torch.device('meta'):
        x = torch.empty(2, 8, 6, 5)
        conv = torch.nn.Conv2d(8, 12, 3, padding=1, groups=4)
        norm = torch.nn.SyncBatchNorm(12).eval()
        linear = torch.nn.Linear(5, 7, bias=False)
    _, layers, full = count_multiply_adds(lambda: linear(norm(conv(x))))
    assert layers == 2 * 12 * 30 * (2 * 9) + 2 * 12 * 6 * (5 * 7)
    assert full == layers + 2 * x.new_empty(2, 12, 6, 5).numel()
    _, layers, full = count_multiply_adds(
        lambda: F.interpolate(x, scale_factor=2, mode='bilinear')
    )
    assert (layers, full) == (0, 4 * 4 * x.numel())


def test_an_auxiliary_head_has_parameters_but_costs_nothing():
    costs = {c.name: c for c in measure(read('configs/mmseg/upernet_ravlt_s_2x.py'))}
    auxiliary = costs['auxiliary_head']
    assert auxiliary.params > 0
    assert auxiliary.layers == auxiliary.full == 0
    assert not auxiliary.runs_in_testing


def run_tool(monkeypatch, *arguments):
    tool = str(ROOT / 'tools/get_flops.py')
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    logger = MMLogger.get_current_instance()
    level = logger.level
    try:
        runpy.run_path(tool, run_name='__main__')
    finally:
        logger.setLevel(level)


def read_table(text):
    """Names of the lines of a Markdown table and their numbers."""
    rows = [line.strip('| ').split('|') for line in text.splitlines() if '|' in line]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_the_tool_prints_each_part_and_the_sum(monkeypatch, capsys):
    run_tool(monkeypatch, 'configs/mmdet/cascade_mask_rcnn_ravlt_s_3x.py')
    table = read_table(capsys.readouterr().out)
    stages = [f'{kind}_head.{i}' for kind in ('bbox', 'mask') for i in range(3)]
    parts = ['backbone', 'neck', 'rpn_head', *(f'roi_head.{s}' for s in stages)]
    assert list(table) == [*parts, 'total']
    for column in range(3):
        summed = sum(float(table[part][column]) for part in parts)
        assert summed == pytest.approx(float(table['total'][column]), abs=0.05)


def test_shape_and_layout_change_the_cost(monkeypatch, capsys):
    config = 'configs/mmdet/retinanet_ravlt_t_1x.py'
    layout = "model.backbone.attention=('rala','rala','rala','rala')"
    totals = []
    for options in ([], ['--shape', '400', '640'], ['--cfg-options', layout]):
        run_tool(monkeypatch, config, *options)
        table = read_table(capsys.readouterr().out)
        totals.append([float(cell) for cell in table['total']])
    usual, small, linear = totals
    assert small[0] == linear[0] == usual[0]
    assert small[1] == pytest.approx(usual[1] / 4, rel=0.01)
    assert linear[1] == usual[1]
    assert round(linear[2]) == 203  # as RELEASE above


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['nowhere.py'], 'there is no config file nowhere.py'),
        (
            ['configs/mmdet/retinanet_ravlt_t_1x.py', '--cfg-options']
            + ['model.backbone.arch=q'],
            "retinanet_ravlt_t_1x.py: the model cannot be built: arch is 'q'",
        ),
    ],
)
def test_a_wrong_config_ends_with_one_sentence(arguments, message, monkeypatch):
    with pytest.raises(SystemExit, match='^error: ') as raised:
        run_tool(monkeypatch, *arguments)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('shape', [('0', '64'), ('64', '-1'), ('64', '6.4')])
def test_a_wrong_shape_ends_with_one_sentence(shape, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, LEAVES[0], '--shape', *shape)
    assert 'give height and width in pixels' in capsys.readouterr().err


def config_of(library, text):
    custom = "custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)"
    text = f"{custom}\n_base_ = '{library}::{text}'\n"
    return Config.fromstring(text, '.py')


# Published with the models: Swin-T's costs in Table 4 of the RAVLT paper.
@pytest.mark.parametrize(
    'library,name,params,flops',
    [
        ('mmdet', 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 48, 267),
        ('mmdet', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 46.03, 289),
        ('mmpretrain', 'resnet/resnet50_8xb32_in1k.py', 25.56, 4.12),
    ],
)
def test_models_with_other_backbones_are_counted(library, name, params, flops):
    cfg = config_of(library, name)
    costs = total(measure(cfg))
    assert costs.params / 1e6 == pytest.approx(params, rel=0.01)
    assert costs.full / 1e9 == pytest.approx(flops, rel=0.01)
    assert measure_with_rala(cfg) is None


def test_a_head_shared_between_regions_is_a_part():
    cfg = config_of('mmdet', '_base_/models/faster-rcnn_r50-caffe-c4.py')
    cfg.default_scope = 'mmdet'
    costs = {cost.name: cost for cost in measure(cfg)}
    assert costs['roi_head.shared_head'].params == pytest.approx(14.96e6, rel=0.01)
    assert costs['roi_head.shared_head'].layers > 100e9


@pytest.mark.parametrize(
    'name,message',
    [
        ('dino/dino-4scale_r50_8xb2-12e_coco.py', 'the model is a DINO; models of'),
        ('htc/htc_r50_fpn_1x_coco.py', 'the RoI head is a HybridTaskCascadeRoIHead'),
        (
            'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
            'the Mask2Former has no bbox_head, which is what is counted here',
        ),
    ],
)
def test_a_model_that_cannot_be_counted_is_named(name, message):
    with pytest.raises(FlopsError, match=message):
        measure(config_of('mmdet', name))


def test_the_table_in_the_docs_is_what_the_tool_prints(monkeypatch, capsys):
    text = (ROOT / 'docs/models.md').read_text()
    begin, end = '<!-- get_flops: begin -->\n', '<!-- get_flops: end -->'
    printed_then = text.split(begin)[1].split(end)[0].strip()
    names = list(read_table(printed_then))
    run_tool(monkeypatch, '--table', *names)
    assert capsys.readouterr().out.strip() == printed_then
    assert {split(name) for name in names} == {split(leaf) for leaf in OF_THE_PAPER}
