# RetinaNet with L2ViT, 12 epochs: what differs from RAVLT's. A leaf adds the variant.
_base_ = ['retinanet_1x.py', 'multi_scale.py']

# As in the release: batch statistics of each GPU alone, and only the three maps that
# the FPN takes, so that every parameter gets a gradient.
model = dict(
    backbone=dict(
        type='L2ViT',
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN'),
        drop_path_rate=0.1,
    ),
    neck=dict(start_level=0),
)
find_unused_parameters = False

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    _base_.multi_scale,
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# 8 GPUs × 2 images, float32. Weight decay on every parameter, no gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
