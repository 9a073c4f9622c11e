"""The detectors' configs are the release's recipes; checked on what they build."""

from pathlib import Path

import pytest
import torch

from mmravlt import config_path
from mmravlt.openmmlab.device import adapt_to_device

from .recipes import (
    assert_backbone,
    build_optimizer,
    built,
    is_finite,
    is_l2vit,
    learning_rates,
    norm_parameters,
    read,
    train_step,
)

RAVLT_RETINANET = [f'mmdet/retinanet_ravlt_{arch}_1x' for arch in 'tsbl']
RAVLT_MASK_1X = [f'mmdet/mask_rcnn_ravlt_{arch}_1x' for arch in 'tsbl']
RETINANET = RAVLT_RETINANET + [f'mmdet/retinanet_l2vit_{arch}_1x' for arch in 'tsb']
MASK_1X = RAVLT_MASK_1X + [f'mmdet/mask_rcnn_l2vit_{arch}_1x' for arch in 'tsb']
MASK_3X = [
    *(f'mmdet/mask_rcnn_ravlt_{arch}_3x' for arch in 'sbl'),
    *(f'mmdet/mask_rcnn_l2vit_{arch}_3x' for arch in 'tsb'),
]
CASCADE = [f'mmdet/cascade_mask_rcnn_ravlt_{arch}_3x' for arch in 'sbl']
LEAVES = RETINANET + MASK_1X + MASK_3X + CASCADE
# Of no paper: mmdet's model and schedule, the optimiser of Mask R-CNN with RAVLT
PANOPTIC = [f'mmdet/panoptic_fpn_ravlt_{arch}_1x' for arch in 'ts']
FIXED_SIZE = RAVLT_RETINANET + RAVLT_MASK_1X


def test_every_leaf_is_covered():
    folder = Path(config_path('mmdet/mask_rcnn_ravlt_t_1x.py')).parent
    covered = LEAVES + PANOPTIC
    assert sorted(covered) == sorted(f'mmdet/{p.stem}' for p in folder.glob('*.py'))


@pytest.mark.parametrize('leaf', LEAVES + PANOPTIC)
def test_model_has_the_backbone_that_the_name_says(leaf):
    cfg = read(leaf)
    model = built(leaf)
    assert_backbone(leaf, cfg, model)
    detectors = dict(r='RetinaNet', m='MaskRCNN', c='CascadeRCNN', p='PanopticFPN')
    assert type(model).__name__ == detectors[leaf[len('mmdet/')]]
    preprocessor = model.data_preprocessor
    assert preprocessor._channel_conversion
    assert preprocessor.mean.shape == (3, 1, 1)
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize('leaf', RETINANET)
def test_retinanet_starts_from_the_second_stage(leaf):
    cfg = read(leaf)
    model = built(leaf)
    channels = list(model.backbone.settings['embed_dims'])[1:]
    assert model.neck.in_channels[model.neck.start_level :] == channels
    assert model.neck.add_extra_convs == 'on_input'
    # RAVLT's first output norm has no gradient, which DDP must be told.
    assert cfg.find_unused_parameters != is_l2vit(leaf)
    assert model.backbone.out_indices[-3:] == (1, 2, 3)


@pytest.mark.parametrize('leaf', CASCADE)
def test_cascade_has_convolutional_box_heads_with_their_losses(leaf):
    model = built(leaf)
    assert model.train_cfg.rpn_proposal.max_per_img == 2000
    assert type(model.rpn_head.loss_bbox).__name__ == 'SmoothL1Loss'
    assert model.rpn_head.loss_bbox.beta == pytest.approx(1 / 9)
    assert len(model.roi_head.bbox_head) == len(model.roi_head.mask_head) == 3
    for head, std in zip(model.roi_head.bbox_head, (0.1, 0.05, 0.033), strict=True):
        assert len(head.shared_convs) == 4
        assert len(head.shared_fcs) == 1
        assert isinstance(head.shared_convs[0].norm, torch.nn.SyncBatchNorm)
        assert head.fc_reg.out_features == 4 * 80
        assert head.reg_decoded_bbox
        assert type(head.loss_bbox).__name__ == 'GIoULoss'
        assert head.loss_bbox.loss_weight == 10
        assert head.bbox_coder.stds[0] == std
    ious = [stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn]
    assert ious == [0.5, 0.6, 0.7]


@pytest.mark.parametrize('leaf', LEAVES + PANOPTIC)
def test_ravlt_trains_in_fp16_and_l2vit_in_float32_without_gradient_clipping(leaf):
    wrapper = read(leaf).optim_wrapper
    assert wrapper.type == ('OptimWrapper' if is_l2vit(leaf) else 'AmpOptimWrapper')
    scale = 512 if leaf in RETINANET else 'dynamic'
    assert wrapper.get('loss_scale') == (None if is_l2vit(leaf) else scale)
    assert 'clip_grad' not in wrapper


@pytest.mark.parametrize('leaf', LEAVES + PANOPTIC)
def test_optimizer_decays_what_the_release_decays(leaf):
    optimizer, settings = build_optimizer(leaf)
    assert type(optimizer) is torch.optim.AdamW
    if leaf in RETINANET or is_l2vit(leaf):
        free, decay = set(), 0.05 if is_l2vit(leaf) else 1e-4
    else:
        free, decay = {name for name in settings if 'norm' in name}, 0.05
        assert free
    if leaf in CASCADE:
        free |= norm_parameters(leaf)
        assert 'roi_head.bbox_head.0.shared_convs.0.bn.weight' in free
    for name, group in settings.items():
        assert group['lr'] == pytest.approx(1e-4), name
        assert group['betas'] == (0.9, 0.999)
        assert group['weight_decay'] == (0 if name in free else decay), name


@pytest.mark.parametrize('leaf', LEAVES + PANOPTIC)
def test_learning_rate_warms_up_500_iterations_and_drops_twice(leaf):
    cfg = read(leaf)
    epochs, *drops = (12, 8, 11) if leaf.endswith('1x') else (36, 27, 33)
    assert cfg.train_cfg.max_epochs == epochs
    per_epoch = 1000  # any number above the warm-up
    rates = learning_rates(cfg, per_epoch)
    first, second = (drop * per_epoch for drop in drops)
    assert len(rates) == epochs * per_epoch
    assert rates[0] == pytest.approx(1e-7)
    assert rates[250] == pytest.approx(1e-4 * (0.001 + 0.999 * 250 / 499), rel=1e-3)
    assert rates[500] == rates[first - 1] == pytest.approx(1e-4)
    assert rates[first] == rates[second - 1] == pytest.approx(1e-5)
    assert rates[second] == rates[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize('leaf', LEAVES + PANOPTIC)
def test_batch_is_16_images_on_8_gpus_except_for_mask_rcnn_large_3x(leaf):
    per_gpu = 1 if leaf == 'mmdet/mask_rcnn_ravlt_l_3x' else 2
    cfg = read(leaf)
    assert cfg.train_dataloader.batch_size == per_gpu
    assert cfg.auto_scale_lr.base_batch_size == 8 * per_gpu


@pytest.mark.parametrize('leaf', LEAVES)
def test_each_epoch_ends_with_coco_scores(leaf):
    cfg = read(leaf)
    assert cfg.train_cfg.val_interval == 1
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'CocoMetric'
        assert evaluator.metric == ('bbox' if leaf in RETINANET else ['bbox', 'segm'])
        assert evaluator.ann_file == 'data/coco/annotations/instances_val2017.json'
    dataset = cfg.train_dataloader.dataset
    assert dataset.data_root + dataset.ann_file == (
        'data/coco/annotations/instances_train2017.json'
    )
    test_steps = {s.type: s for s in cfg.test_dataloader.dataset.pipeline}
    assert test_steps['Resize'].scale == (1333, 800)
    assert test_steps['Resize'].keep_ratio


@pytest.mark.parametrize('leaf', FIXED_SIZE)
def test_1x_trains_at_1333_by_800_with_flips(leaf):
    steps = {s.type: s for s in read(leaf).train_dataloader.dataset.pipeline}
    assert list(steps) == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'Resize',
        'RandomFlip',
        'PackDetInputs',
    ]
    assert steps['Resize'].scale == (1333, 800) and steps['Resize'].keep_ratio
    assert steps['RandomFlip'].prob == 0.5


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf not in FIXED_SIZE])
def test_3x_images_and_all_of_l2vit_come_in_many_sizes_within_800_by_1333(leaf):
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    cfg = read(leaf)
    load, annotations, flip, choice, pack = cfg.train_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile' and pack.type == 'PackDetInputs'
    assert annotations.with_bbox
    assert annotations.get('with_mask', False) == (leaf not in RETINANET)
    assert flip == dict(type='RandomFlip', prob=0.5)
    assert choice.type == 'RandomChoice'
    plain, crop = choice.transforms
    assert [s.type for s in plain] == ['RandomChoiceResize']
    sides = [min(scale) for scale in plain[0].scales]
    assert sides == list(range(480, 801, 32))
    assert [min(scale) for scale in crop[0].scales] == [400, 500, 600]
    assert tuple(crop[1].crop_size) == (384, 600)
    assert crop[2].scales == plain[0].scales

    import numpy as np

    shapes = set()
    for branch in (plain, crop):
        transform = Compose([TRANSFORMS.build(step) for step in branch])
        for _ in range(5):
            image = np.zeros((427, 640, 3), np.uint8)
            shape = transform(dict(img=image, img_shape=(427, 640)))['img'].shape[:2]
            assert 480 <= min(shape) <= 800 and max(shape) <= 1333
            shapes.add(shape)
    assert len(shapes) > 3
    assert all(
        max(scale) == 1333
        for step in (plain[0], crop[0], crop[2])
        for scale in step.scales
    )


@pytest.mark.parametrize('leaf', MASK_3X)
def test_mask_rcnn_is_the_same_for_1x_and_3x_but_for_its_drop_path(leaf):
    shorter = leaf.replace('3x', '1x')
    assert shorter in MASK_1X
    models = [read(one).model for one in (leaf, shorter)]
    for model in models:
        model.backbone.pop('drop_path_rate', None)  # the name says it, see above
    assert models[0] == models[1]


# What is trained by 3x is the model of 1x, see above.
@pytest.mark.parametrize('leaf', RETINANET + MASK_1X + CASCADE)
def test_a_training_step_reaches_every_parameter_and_a_prediction_follows(leaf):
    from mmdet.testing import demo_mm_inputs

    cfg = read(leaf)
    # Fewer proposals than in the recipe: 64 × 64 pixels have no room for more.
    if 'rpn_head' in cfg.model:
        cfg.model.train_cfg.rpn_proposal.max_per_img = 8
        cfg.model.test_cfg.rpn.max_per_img = 4
    data = demo_mm_inputs(
        2,
        [[3, 64, 64], [3, 48, 60]],  # padded to one size
        num_items=[3, 2],
        num_classes=80,
        with_mask='rpn_head' in cfg.model,
    )
    model, logged = train_step(cfg, data)
    assert all(torch.isfinite(value).all() for value in logged.values())
    unused = 'backbone.extra_norms.0.' if leaf in RAVLT_RETINANET else None
    for name, parameter in model.named_parameters():
        if unused and name.startswith(unused):
            assert parameter.grad is None, name
        else:
            assert is_finite(parameter.grad), name
    model.eval()
    with torch.no_grad():
        results = model.test_step(data)
    assert len(results) == 2
    for result in results:
        predicted = result.pred_instances
        assert predicted.bboxes.shape == (len(predicted), 4)
        assert ('masks' in predicted) == (leaf not in RETINANET)


@pytest.mark.parametrize('leaf', LEAVES)
def test_without_a_gpu_the_same_config_runs_in_float32_with_bn(leaf, monkeypatch):
    monkeypatch.setattr('mmravlt.openmmlab.device.get_device', lambda: 'cpu')
    said = []
    monkeypatch.setattr(
        'mmravlt.openmmlab.device.print_log', lambda text, **_: said.append(text)
    )
    cfg = read(leaf)
    adapt_to_device(cfg)
    assert 'SyncBN' not in repr(cfg.model)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper
    if is_l2vit(leaf):  # it is so on a GPU too
        assert not said
        return
    assert len(said) == 1
    assert 'SyncBN is replaced by BN, fp16 is replaced by float32' in said[0]


def test_with_a_gpu_the_config_stays_as_it_is(monkeypatch):
    monkeypatch.setattr('mmravlt.openmmlab.device.get_device', lambda: 'cuda')
    cfg = read('mmdet/mask_rcnn_ravlt_t_1x')
    before = cfg.to_dict()
    adapt_to_device(cfg)
    assert cfg.to_dict() == before
