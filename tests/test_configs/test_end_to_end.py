"""Each kind of experiment trains, evaluates and resumes through tools/train.py."""

import csv
import json
import math

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from demo.shapes import write_shapes
from mmravlt import config_path, tasks

from ..processes import run_tool

SIZE = 64
LOG_ALL = 'default_hooks.logger.interval=1'
SEED = 'randomness.seed=0'
CHANNELS = '[8,16,24,32]'
# The configs' own sizes are built and run in tests/test_analysis/test_flops.py.
ARCH = [
    'model.backbone.arch._delete_=True',
    f'model.backbone.arch.embed_dims={CHANNELS}',
    'model.backbone.arch.depths=(1,2,1,2)',
    'model.backbone.arch.num_heads=(1,2,3,4)',
]
FPN = [*ARCH, f'model.neck.in_channels={CHANNELS}']
# The commands of the README load their data in processes of their own.
NO_WORKERS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val')
    for option in ('num_workers=0', 'persistent_workers=False')
]
DETECTION = [
    *('train_cfg.max_epochs={}', 'model.backbone.init_cfg=None', LOG_ALL, SEED),
    *(*FPN, *NO_WORKERS),
]
PROPOSALS = [
    'model.train_cfg.rpn_proposal.max_per_img=32',
    'model.test_cfg.rpn.max_per_img=8',
    'model.roi_head.mask_head.num_convs=1',
    'model.roi_head.mask_head.conv_out_channels=16',
]
BOX_HEAD = [
    'model.roi_head.bbox_head.fc_out_channels=16',
    'model.train_cfg.rcnn.sampler.num=16',
]
BOX_HEADS = [
    option
    for i in range(3)
    for option in (
        f'model.roi_head.bbox_head.{i}.fc_out_channels=16',
        f'model.train_cfg.rcnn.{i}.sampler.num=16',
    )
]
RETINA_HEAD = [
    'model.bbox_head.stacked_convs=1',
    'model.test_cfg.score_thr=0',  # untrained, it gives every box one of about 0.01
    'model.test_cfg.nms_pre=50',
]
UPERNET = [
    *ARCH,
    f'model.decode_head.in_channels={CHANNELS}',
    'model.decode_head.channels=16',
    'model.auxiliary_head.in_channels=24',
    'model.auxiliary_head.channels=16',
]
TEST_SIZE = [
    f'{split}_dataloader.dataset.pipeline.1.scale=({SIZE},{SIZE})'
    for split in ('val', 'test')
]
FIXED_SIZE = [f'train_dataloader.dataset.pipeline.2.scale=({SIZE},{SIZE})', *TEST_SIZE]
RANDOM_CHOICE = 'train_dataloader.dataset.pipeline.3.transforms'
MANY_SIZES = [
    f'{RANDOM_CHOICE}.0.0.scales=[({SIZE},{SIZE}),(48,96)]',
    f'{RANDOM_CHOICE}.1.0.scales=[({SIZE},{SIZE})]',
    f'{RANDOM_CHOICE}.1.1.crop_size=(48,60)',
    f'{RANDOM_CHOICE}.1.2.scales=[({SIZE},{SIZE}),(48,96)]',
    *TEST_SIZE,
]
SEGMENTATION = [
    'train_cfg.max_iters={}',
    'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1',
    LOG_ALL,
    SEED,
    'model.backbone.init_cfg=None',
    f'model.data_preprocessor.size=({SIZE},{SIZE})',
    f'train_dataloader.dataset.pipeline.3.crop_size=({SIZE},{SIZE})',
    f'train_dataloader.dataset.pipeline.2.scale=({SIZE},{SIZE})',
    *TEST_SIZE,
    *NO_WORKERS,
]
CLASSIFICATION = [
    'train_cfg.max_epochs={}',
    LOG_ALL,
    SEED,
    *(*ARCH, *NO_WORKERS),
    'train_dataloader.batch_size=2',
    'val_dataloader.batch_size=2',
    f'train_dataloader.dataset.pipeline.1.scale={SIZE}',
]
# For small data and no GPU: what makes the backbone small is enough.
SHORT = {
    'mmdet/cpu/retinanet_ravlt_t_cpu': [*FPN, 'model.test_cfg.score_thr=0'],
    'mmdet/cpu/mask_rcnn_ravlt_t_cpu': FPN,
    'mmseg/cpu/semantic_fpn_ravlt_t_cpu': FPN,
    'mmpretrain/cpu/ravlt_t_cpu': [*ARCH, 'model.neck.in_channels=32'],
}
# What makes each small, and the score it must report.
RUNS = {
    'mmdet/retinanet_ravlt_t_1x': (
        [*DETECTION, *FIXED_SIZE, *RETINA_HEAD],
        'coco/bbox_mAP',
    ),
    'mmdet/mask_rcnn_ravlt_t_1x': (
        [*DETECTION, *PROPOSALS, *BOX_HEAD, *FIXED_SIZE],
        'coco/segm_mAP',
    ),
    'mmdet/mask_rcnn_ravlt_s_3x': (
        [*DETECTION, *PROPOSALS, *BOX_HEAD, *MANY_SIZES],
        'coco/segm_mAP',
    ),
    'mmdet/cascade_mask_rcnn_ravlt_s_3x': (
        [*DETECTION, *PROPOSALS, *BOX_HEADS, *MANY_SIZES],
        'coco/segm_mAP',
    ),
    'mmseg/semantic_fpn_ravlt_t_1x': ([*SEGMENTATION, *FPN], 'mIoU'),
    'mmseg/upernet_ravlt_s_2x': ([*SEGMENTATION, *UPERNET], 'mIoU'),
    'mmpretrain/ravlt_t_in1k': (
        [*CLASSIFICATION, 'model.neck.in_channels=32'],
        'accuracy/top1',
    ),
    'mmdet/mask_rcnn_l2vit_t_1x': (
        [*DETECTION, *PROPOSALS, *BOX_HEAD, *MANY_SIZES],
        'coco/segm_mAP',
    ),
    'mmpretrain/l2vit_t_in1k': (
        [*CLASSIFICATION, 'model.head.in_channels=32'],
        'accuracy/top1',
    ),
}


def write_data(folder, library):
    """Two training images and one to evaluate on, in the layout of ``--data``."""
    if library == 'mmdet':
        write_shapes(folder, num_train=2, num_val=1, size=SIZE)
        return
    rng = np.random.default_rng(0)
    for i, split in enumerate(('train', 'train', 'val')):
        image = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        if library == 'mmseg':
            places = {
                f'images/{split}/{i}.png': image,
                f'annotations/{split}/{i}.png': (image[..., 0] > 128).astype(np.uint8),
            }
        else:
            places = {f'{split}/{name}/{i}.png': image for name in ('cat', 'dog')}
        for name, pixels in places.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name), pixels)
    if library == 'mmseg':
        (folder / 'classes.txt').write_text('dark\nbright\n')


@pytest.mark.slow
@pytest.mark.parametrize('leaf', RUNS)
def test_training_evaluates_and_resumes(leaf, tmp_path):
    options, score = RUNS[leaf]
    library = leaf.split('/')[0]
    write_data(tmp_path / 'data', library)

    def train(until, *resume):
        run_tool(
            *('train.py', config_path(f'{leaf}.py')),
            *('--data', 'data', '--work-dir', 'work', *resume, '--cfg-options'),
            *(option.format(until) for option in options),
            cwd=tmp_path,
        )
        newest = max((tmp_path / 'work').glob('*/vis_data/scalars.json'))
        return [json.loads(line) for line in newest.read_text().splitlines()]

    clock = 'iter' if library == 'mmseg' else 'epoch'
    for until, resume in ((1, ()), (2, ('--resume',))):
        records = train(until, *resume)
        assert (tmp_path / f'work/{clock}_{until}.pth').is_file()
        scores = [record[score] for record in records if score in record]
        assert len(scores) == 1 and 0 <= scores[0] <= 100
        trained = [record for record in records if 'loss' in record]
        assert all(math.isfinite(record['loss']) for record in trained)
        # The second run goes on where the first one ended.
        assert {record[clock] for record in trained} == {until}


@pytest.mark.slow
@pytest.mark.parametrize('leaf', SHORT)
def test_a_short_command_trains_and_keeps_the_best_and_the_last(leaf, tmp_path):
    write_data(tmp_path / 'data', leaf.split('/')[0])
    words = ('--data', 'data', '--weights', 'none', '--epochs', '2')
    words += ('--image-size', SIZE, '--batch-size', '2', '--work-dir', 'work')
    words += ('--cfg-options', *SHORT[leaf])
    run_tool('train.py', config_path(f'{leaf}.py'), *words, cwd=tmp_path)
    cfg = Config.fromfile(config_path(f'{leaf}.py'))
    with (tmp_path / 'work/results.csv').open() as table:
        *_, last = csv.DictReader(table)
    assert 0 <= float(last[tasks.of(cfg).score(cfg)]) <= 100
    kept = sorted(path.name[:4] for path in (tmp_path / 'work').glob('*.pth'))
    assert kept in (['best', 'epoc'], ['best', 'iter'])
