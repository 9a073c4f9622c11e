# Mask R-CNN with L2ViT, 12 epochs, in many sizes as in the release. A leaf adds the
# variant.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'coco_instance_multi_scale.py',
]
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

# As in the release: batch statistics of each GPU alone.
model = dict(
    backbone=dict(
        _delete_=True,
        type='L2ViT',
        norm_cfg=dict(type='BN'),
        out_channels_last=True,
        drop_path_rate=0.1,
    ),
)

# 8 GPUs × 2 images, float32. Weight decay on every parameter, no gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
