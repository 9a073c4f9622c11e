# COCO instance segmentation, 12 epochs of 1333×800 images with flips, as the
# authors' release trains Mask R-CNN. Data and schedule are mmdet's own.
_base_ = [
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

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
