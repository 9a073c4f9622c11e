# RetinaNet with RAVLT on COCO, 12 epochs of 1333×800 images with flips. A leaf
# adds the variant.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='RAVLT',
        norm_cfg=dict(type='SyncBN'),
        out_channels_last=True,
    ),
)

# 8 GPUs × 2 images. Weight decay on every parameter, no gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale=512.0,
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
# The FPN starts from the second stage, so the first output norm, which the
# released weights have, gets no gradient.
find_unused_parameters = True
