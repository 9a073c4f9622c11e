"""The segmentors' configs are the release's recipes; checked on what they build."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmravlt import config_path

from .recipes import (
    assert_backbone,
    build_optimizer,
    built,
    is_finite,
    is_l2vit,
    learning_rates,
    read,
    train_step,
)

SEMANTIC_FPN = [f'mmseg/semantic_fpn_ravlt_{arch}_1x' for arch in 'tsbl']
UPERNET = [
    *(f'mmseg/upernet_ravlt_{arch}_2x' for arch in 'sbl'),
    *(f'mmseg/upernet_l2vit_{arch}_2x' for arch in 'tsb'),
]
LEAVES = SEMANTIC_FPN + UPERNET


def test_every_leaf_is_covered():
    folder = Path(config_path('mmseg/upernet_ravlt_s_2x.py')).parent
    assert sorted(LEAVES) == sorted(f'mmseg/{p.stem}' for p in folder.glob('*.py'))


@pytest.mark.parametrize('leaf', LEAVES)
def test_model_has_the_backbone_that_the_name_says(leaf):
    cfg = read(leaf)
    model = built(leaf)
    assert_backbone(leaf, cfg, model)
    assert type(model).__name__ == 'EncoderDecoder'
    assert model.test_cfg.mode == 'whole'


@pytest.mark.parametrize('leaf', LEAVES)
def test_all_batch_norms_but_those_of_l2vit_are_synchronised(leaf):
    model = built(leaf)
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert len(norms) > 8
    for name, norm in norms.items():
        is_alone = is_l2vit(leaf) and name.startswith('backbone.')
        assert isinstance(norm, nn.SyncBatchNorm) != is_alone, name


@pytest.mark.parametrize('leaf', LEAVES)
def test_training_images_are_scaled_cropped_flipped_and_distorted(leaf):
    load, annotations, resize, crop, flip, distort, pack = read(
        leaf
    ).train_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile' and pack.type == 'PackSegInputs'
    assert annotations == dict(type='LoadAnnotations', reduce_zero_label=True)
    assert resize.type == 'RandomResize' and resize.keep_ratio
    assert (resize.scale, resize.ratio_range) == ((2048, 512), (0.5, 2.0))
    assert crop == dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75)
    assert flip == dict(type='RandomFlip', prob=0.5)
    assert distort == dict(type='PhotoMetricDistortion')


@pytest.mark.parametrize('leaf', LEAVES)
def test_images_turn_to_rgb_and_are_normalised(leaf):
    preprocessor = MODELS.build(read(leaf).model.data_preprocessor)
    assert preprocessor.size == (512, 512)
    blue_green_red = torch.tensor([10.0, 20.0, 30.0])[:, None, None].repeat(1, 8, 8)
    image = preprocessor(dict(inputs=[blue_green_red]))['inputs'][0]
    means, stds = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    expected = [(v - m) / s for v, m, s in zip((30, 20, 10), means, stds, strict=True)]
    assert image[:, 0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize('leaf', SEMANTIC_FPN)
def test_semantic_fpn_sums_256_channels_into_128(leaf):
    model = built(leaf)
    assert model.neck.out_channels == 256
    assert model.decode_head.channels == 128
    assert [len(head) for head in model.decode_head.scale_heads] == [1, 2, 4, 6]
    assert model.decode_head.conv_seg.out_channels == 150
    assert not model.with_auxiliary_head


@pytest.mark.parametrize('leaf', UPERNET)
def test_upernet_has_an_auxiliary_head_on_the_third_stage(leaf):
    cfg = read(leaf)
    model = built(leaf)
    assert model.decode_head.channels == 512
    assert model.decode_head.loss_decode.loss_weight == 1
    auxiliary = model.auxiliary_head
    assert type(auxiliary).__name__ == 'FCNHead'
    assert (
        auxiliary.in_channels
        == model.backbone.arch_zoo[cfg.model.backbone.arch]['embed_dims'][2]
    )
    assert (auxiliary.in_index, auxiliary.channels) == (2, 256)
    assert auxiliary.loss_decode.loss_weight == 0.4


@pytest.mark.parametrize('leaf', LEAVES)
def test_upernet_with_ravlt_trains_in_fp16_and_the_rest_in_float32(leaf):
    wrapper = read(leaf).optim_wrapper
    if leaf in UPERNET and not is_l2vit(leaf):
        assert (wrapper.type, wrapper.loss_scale) == ('AmpOptimWrapper', 512)
    else:
        assert wrapper.type == 'OptimWrapper'
    assert 'clip_grad' not in wrapper


@pytest.mark.parametrize('leaf', LEAVES)
def test_optimizer_decays_what_the_release_decays(leaf):
    optimizer, settings = build_optimizer(leaf)
    assert type(optimizer) is torch.optim.AdamW
    lr, decay = (6e-5, 0.01) if leaf in UPERNET else (1e-4, 1e-4)
    for name, group in settings.items():
        free = leaf in UPERNET and not is_l2vit(leaf) and 'norm' in name
        assert group['lr'] == pytest.approx(lr), name
        assert group['betas'] == (0.9, 0.999)
        assert group['weight_decay'] == (0 if free else decay), name
    assert any('norm' in name for name in settings)


@pytest.mark.parametrize('leaf', SEMANTIC_FPN)
def test_semantic_fpn_rate_falls_from_the_start_over_80k_iterations(leaf):
    rates = learning_rates(read(leaf))
    assert len(rates) == 80000
    for iteration in (0, 1, 1500, 40000, 72000, 79999):
        left = 1 - iteration / 80000
        expected = 1e-6 + (1e-4 - 1e-6) * left**0.9
        # MMEngine reaches the end one iteration before mmcv 1.x does.
        assert rates[iteration] == pytest.approx(expected, abs=1e-4 / 20000)


@pytest.mark.parametrize('leaf', UPERNET)
def test_upernet_rate_warms_up_and_falls_linearly_over_160k_iterations(leaf):
    rates = learning_rates(read(leaf))
    assert len(rates) == 160000
    assert rates[0] == pytest.approx(6e-11)
    for iteration in (500, 750, 1499, 1500, 1501, 80000, 159999):
        warm = min(1, 1e-6 + (1 - 1e-6) * iteration / 1499)
        expected = 6e-5 * warm * (1 - iteration / 160000)
        assert rates[iteration] == pytest.approx(expected, abs=6e-5 / 160000)


@pytest.mark.parametrize('leaf', LEAVES)
def test_batch_is_16_images_on_8_gpus(leaf):
    cfg = read(leaf)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize('leaf', LEAVES)
def test_scores_are_computed_and_weights_saved_at_the_release_interval(leaf):
    cfg = read(leaf)
    interval = 8000 if leaf in UPERNET else 4000
    assert cfg.train_cfg.val_interval == interval
    assert cfg.default_hooks.checkpoint.interval == interval
    assert not cfg.default_hooks.checkpoint.by_epoch
    saves_best = cfg.default_hooks.checkpoint.get('save_best')
    assert saves_best == ('mIoU' if leaf in UPERNET else None)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert (evaluator.type, evaluator.iou_metrics) == ('IoUMetric', ['mIoU'])


@pytest.fixture
def ade20k(tmp_path):
    """One wide image in ADE20K's layout; label 0 is 'other', 1 to 150 are classes."""
    image = np.full((60, 480, 3), 100, np.uint8)
    label = np.repeat(np.arange(160, dtype=np.uint8) % 151, 3)[None].repeat(60, 0)
    for split in ('training', 'validation'):
        for folder, name, pixels in (
            ('images', 'a.jpg', image),
            ('annotations', 'a.png', label),
        ):
            path = tmp_path / folder / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    return tmp_path


@pytest.mark.parametrize('leaf', LEAVES)
def test_crops_are_512_wide_and_images_are_tested_whole(leaf, ade20k):
    from mmseg.registry import DATASETS

    cfg = read(leaf)
    datasets = {}
    for split in ('train', 'test'):
        settings = cfg[f'{split}_dataloader'].dataset
        settings.data_root = str(ade20k)
        datasets[split] = DATASETS.build(settings)
    assert len(datasets['train'].metainfo['classes']) == 150

    tested = datasets['test'][0]
    assert tested['inputs'].shape == (3, 256, 2048)
    label = tested['data_samples'].gt_sem_seg.data
    assert label.shape == (1, 60, 480)
    # 'other' is ignored, and the classes count from 0.
    assert label[0, 0, :9].tolist() == [255] * 3 + [0] * 3 + [1] * 3

    heights = set()
    for _ in range(8):
        trained = datasets['train'][0]
        height, width = trained['inputs'].shape[1:]
        assert height <= 512 and width <= 512
        assert trained['data_samples'].gt_sem_seg.shape == (height, width)
        heights.add(height)
    assert len(heights) > 2  # scales from 0.5 to 2


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_training_step_reaches_every_parameter_and_a_prediction_follows(leaf):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    cfg = read(leaf)
    cfg.model.data_preprocessor.size = (64, 64)
    samples = []
    for height, width in ((64, 64), (48, 60)):
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, height, width))),
            metainfo=dict(ori_shape=(height, width), img_shape=(height, width)),
        )
        samples.append(sample)
    images = [torch.randint(0, 256, (3, *s.gt_sem_seg.shape)).byte() for s in samples]
    model, logged = train_step(cfg, dict(inputs=images, data_samples=samples))
    assert all(torch.isfinite(value).all() for value in logged.values())
    for name, parameter in model.named_parameters():
        assert is_finite(parameter.grad), name
    model.eval()
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=images[1:], data_samples=samples[1:]))
    predicted = result.pred_sem_seg.data
    assert predicted.shape == (1, 48, 60)
    assert predicted.min() >= 0 and predicted.max() < 150
