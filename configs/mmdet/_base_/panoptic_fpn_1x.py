# Panoptic FPN with RAVLT. Model, data and 12 epochs are mmdet's own recipe for ResNet,
# the optimiser is that of Mask R-CNN with RAVLT: no paper trains this model, and this
# project has not measured what it reaches. A leaf adds the variant.
_base_ = 'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='RAVLT',
        norm_cfg=dict(type='SyncBN'),
        out_channels_last=True,
    ),
)

# 8 GPUs × 2 images. No decay on names with 'norm', no gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
