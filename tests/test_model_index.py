"""model-index.yml, which mim reads, describes every experiment as it is.

Sizes and costs in it are checked in ``test_flops.py``.
"""

from pathlib import Path

import pytest
from mmengine.config import Config
from modelindex.load_model_index import load

ROOT = Path(__file__).parents[1]
MODELS = {model.name: model for model in load(str(ROOT / 'model-index.yml')).models}

# Tables 2 to 7 of the paper: (task, metric) -> result by experiment and variant.
BOXES, MASKS = ('Object Detection', 'box AP'), ('Instance Segmentation', 'mask AP')
MIOU, TOP1 = (
    ('Semantic Segmentation', 'mIoU'),
    ('Image Classification', 'Top 1 Accuracy'),
)
PAPER = {
    ('retinanet_ravlt_{}_1x', BOXES): dict(t=45.9, s=48.3, b=49.8, l=50.9),
    ('mask_rcnn_ravlt_{}_1x', BOXES): dict(t=47.3, s=49.8, b=51.2, l=52.3),
    ('mask_rcnn_ravlt_{}_1x', MASKS): dict(t=42.7, s=44.6, b=45.7, l=46.4),
    ('mask_rcnn_ravlt_{}_3x', BOXES): dict(s=51.4, b=52.7, l=53.6),
    ('mask_rcnn_ravlt_{}_3x', MASKS): dict(s=45.5, b=46.4, l=47.3),
    ('cascade_mask_rcnn_ravlt_{}_3x', BOXES): dict(s=54.2, b=55.3, l=55.6),
    ('cascade_mask_rcnn_ravlt_{}_3x', MASKS): dict(s=46.8, b=47.7, l=48.0),
    ('semantic_fpn_ravlt_{}_1x', MIOU): dict(t=47.9, s=49.5, b=51.9, l=52.6),
    ('upernet_ravlt_{}_2x', MIOU): dict(s=50.7, b=52.5, l=53.2),
    ('ravlt_{}_in1k', TOP1): dict(t=82.8, s=84.4, b=85.5, l=85.8),
    ('ravlt_{}_in1k_v2', TOP1): dict(t=72.7, s=74.9, b=76.3, l=76.8),
}
# File names of the release, by experiment.
FILES = {
    'retinanet_ravlt_{}_1x': 'retinanet_{}_1x_12_epoch.pth',
    'mask_rcnn_ravlt_{}_1x': 'maskrcnn_{}_1x_12_epoch.pth',
    'mask_rcnn_ravlt_{}_3x': 'maskrcnn_{}_3x_36_epoch.pth',
    'cascade_mask_rcnn_ravlt_{}_3x': 'Casmaskrcnn_{}_3x_36_epoch.pth',
    'semantic_fpn_ravlt_{}_1x': 'fpn_{}_1x.pth',
    'upernet_ravlt_{}_2x': 'uper_{}_2x.pth',
}


def test_every_leaf_config_has_one_entry():
    leaves = {str(path.relative_to(ROOT)) for path in ROOT.glob('configs/mm*/*.py')}
    # 25 experiments with RAVLT, 4 classifiers on ImageNet-V2, 15 with L2ViT, and
    # Panoptic FPN, of which the paper has none
    assert len(leaves) == 46
    assert sorted(model.config for model in MODELS.values()) == sorted(leaves)
    assert all(Path(model.config).stem == name for name, model in MODELS.items())


@pytest.mark.parametrize('experiment,metric', PAPER)
def test_results_are_the_papers_and_say_so(experiment, metric):
    for arch, expected in PAPER[experiment, metric].items():
        model = MODELS[experiment.format(arch)]
        task, name = metric
        (result,) = [result for result in model.results if result.task == task]
        assert result.metrics[name] == expected
        assert 'not measured by this project' in model.metadata.data['Results From']


@pytest.mark.parametrize('arch,top1', [('t', 83.1), ('s', 84.1), ('b', 84.4)])
def test_l2vit_has_the_papers_results_and_the_weights_that_detectors_start_from(
    arch, top1
):
    model = MODELS[f'l2vit_{arch}_in1k']
    (result,) = model.results
    assert result.metrics['Top 1 Accuracy'] == top1
    assert 'not measured by this project' in model.metadata.data['Results From']
    base = Config.fromfile(ROOT / f'configs/_base_/l2vit_{arch}.py')
    assert model.data['Weights'] == base.l2vit.init_cfg.checkpoint


@pytest.mark.parametrize('experiment', FILES)
def test_weights_are_the_released_files(experiment):
    for arch in 'tsbl':
        if experiment.format(arch) in MODELS:
            url = MODELS[experiment.format(arch)].data['Weights']
            assert url == (
                'https://huggingface.co/aldjalkdf/RAVLT/resolve/main/'
                + FILES[experiment].format(arch)
            )


@pytest.mark.parametrize('suffix', ['in1k', 'in1k_v2'])
def test_weights_of_classifiers_are_those_that_detectors_start_from(suffix):
    for arch in 'tsbl':
        base = Config.fromfile(ROOT / f'configs/_base_/ravlt_{arch}.py')
        url = MODELS[f'ravlt_{arch}_{suffix}'].data['Weights']
        assert url == base.ravlt.init_cfg.checkpoint
