# Mask R-CNN with RAVLT: model, optimiser and precision of the authors' release,
# in mmdet 3.x terms. What mmdet's own base files say already is taken from them.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

# A leaf adds the variant, from ravlt_{t,s,b,l}.py.
model = dict(
    backbone=dict(_delete_=True, type='RAVLT', norm_cfg=dict(type='SyncBN')),
)

# 8 GPUs × 2 images. No gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # No decay on any parameter whose name contains 'norm'. As in the release,
    # the batch norms of the patch embedding are not among them.
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
