"""Small configs and data for end-to-end runs, one for each task."""

import json
from pathlib import Path

import cv2
import numpy as np

from demo.shapes import CLASSES, write_shapes

ARCH = 'embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)'

DETECTION = f"""
_base_ = __import__('mmravlt').config_path('mmdet/mask_rcnn_ravlt_t_1x.py')
model = dict(
    backbone=dict(arch=dict(_delete_=True, {ARCH}), init_cfg=None),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=50),
                   rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)))
train_cfg = dict(max_epochs=3)
randomness = dict(seed=0)
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = (96, 96)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1))
"""

PANOPTIC = f"""{DETECTION.replace('mask_rcnn', 'panoptic_fpn')}
model['semantic_head'] = dict(
    in_channels=16, inner_channels=8, norm_cfg=dict(num_groups=4))
model['test_cfg'].update(
    rcnn=dict(score_thr=0.05), panoptic=dict(stuff_area_limit=1))
"""

COMMON = """
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
randomness = dict(seed=0)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
vis_backends = [dict(type='LocalVisBackend')]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1))
"""

SEGMENTATION = f"""{COMMON}
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64), seg_pad_val=255),
    backbone=dict(type='RAVLT', arch=dict({ARCH}), norm_cfg=dict(type='SyncBN')),
    decode_head=dict(type='FCNHead', in_channels=32, in_index=3, channels=8,
                     num_convs=1, num_classes=2, norm_cfg=dict(type='SyncBN'),
                     loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
dataset = dict(type='BaseSegDataset', data_root='data',
               data_prefix=dict(img_path='images', seg_map_path='labels'),
               metainfo=dict(classes=('dark', 'bright'),
                             palette=[[0, 0, 0], [255, 255, 0]]))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'),
                           dict(type='LoadAnnotations'),
                           dict(type='PackSegInputs')], **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'),
                           dict(type='LoadAnnotations'),
                           dict(type='PackSegInputs')], **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends,
                  name='visualizer')
default_hooks.update(visualization=dict(type='SegVisualizationHook'))
"""

CLASSIFICATION = f"""{COMMON}
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='RAVLT', arch=dict({ARCH}), out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=32, topk=(1,),
              loss=dict(type='CrossEntropyLoss')))
dataset = dict(type='CustomDataset', data_root='data', with_label=True,
               pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                        sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                      sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
default_hooks.update(visualization=dict(type='VisualizationHook'))
"""

CONFIGS = dict(mmdet=DETECTION, mmseg=SEGMENTATION, mmpretrain=CLASSIFICATION)
NUM_CLASSES = len(CLASSES)


def write_project(folder: Path, library: str) -> None:
    """Write ``config.py`` and ``data`` of one library into ``folder``."""
    (folder / 'config.py').write_text(CONFIGS[library])
    data = folder / 'data'
    if library == 'mmdet':
        write_shapes(data, num_train=4, num_val=2, size=64)
        return
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(0, 100, (64, 64, 3), np.uint8)
        label = np.zeros((64, 64), np.uint8)
        label[:, : 16 + 8 * i] = 1
        image[label == 1] += 150
        if library == 'mmseg':
            places = {f'images/{i}.jpg': image, f'labels/{i}.png': label}
        else:
            places = {f'{"even" if i % 2 == 0 else "odd"}/{i}.png': image}
        for name, pixels in places.items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(data / name), pixels)


STUFF = ('sky', 'floor')


def write_panoptic_shapes(folder: Path, size: int = 64) -> None:
    """Coloured shapes, 4 to train and 2 to validate on, as COCO's panoptic data.

    The upper half of what is no shape is sky, the lower half floor; one row of pixels
    between them belongs to nothing.
    """
    write_shapes(folder, num_train=4, num_val=2, size=size)
    for split in ('train', 'val'):
        add_panoptic(folder, split, STUFF)


def add_panoptic(folder: Path, split: str, stuff: tuple[str, str]) -> None:
    """Turn a split's instance annotations into panoptic ones."""
    source = folder / f'annotations/instances_{split}.json'
    content = json.loads(source.read_text())
    source.unlink()
    names = [category['name'] for category in content['categories']]
    categories = [
        dict(id=10 * (i + 1), name=name, isthing=int(i < len(names)))
        for i, name in enumerate([*names, *stuff])
    ]
    numbers = {c['id']: 10 * (i + 1) for i, c in enumerate(content['categories'])}
    maps = folder / f'annotations/panoptic_{split}'
    maps.mkdir()
    rows = []
    for image in content['images']:
        ids = np.zeros((image['height'], image['width']), np.int32)
        middle = len(ids) // 2
        ids[:middle], ids[middle + 1 :] = 255, 256
        kinds = {255: 10 * (len(names) + 1), 256: 10 * (len(names) + 2)}
        for number, row in enumerate(content['annotations']):
            if row['image_id'] == image['id']:
                mine = 70_000 + 300 * number
                kinds[mine] = numbers[row['category_id']]
                for polygon in row['segmentation']:
                    points = np.array(polygon).reshape(-1, 2).round().astype(np.int32)
                    cv2.fillPoly(ids, [points], mine)
        segments = []
        for i in np.unique(ids[ids > 0]).tolist():
            y, x = np.nonzero(ids == i)
            low, high = (int(x.min()), int(y.min())), (int(x.max()), int(y.max()))
            box = [*low, high[0] - low[0] + 1, high[1] - low[1] + 1]
            segments.append(
                dict(id=i, category_id=kinds[i], bbox=box, area=len(x), iscrowd=0)
            )
        name = Path(image['file_name']).stem + '.png'
        bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1)
        cv2.imwrite(str(maps / name), bgr.astype(np.uint8))
        row = dict(image_id=image['id'], file_name=name, segments_info=segments)
        rows.append(row)
    content = dict(images=content['images'], annotations=rows, categories=categories)
    source.with_name(f'panoptic_{split}.json').write_text(json.dumps(content))
