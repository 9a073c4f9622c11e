# Mask R-CNN with L2ViT: what differs from RAVLT's. A leaf adds the variant.
_base_ = 'mask_rcnn_3x.py'

# As in the release: batch statistics of each GPU alone.
model = dict(
    backbone=dict(type='L2ViT', norm_cfg=dict(type='BN'), drop_path_rate=0.2),
)

# 8 GPUs × 2 images, float32. Weight decay on every parameter, no gradient clipping.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
