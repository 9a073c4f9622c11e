# Mask R-CNN with L2ViT, 12 epochs. As in the release, also in many sizes.
_base_ = 'mask_rcnn_l2vit_3x.py'

model = dict(backbone=dict(drop_path_rate=0.1))

train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
    ),
]
