# Mask R-CNN with L2ViT, 36 epochs.
_base_ = 'mask_rcnn_l2vit_1x.py'

model = dict(backbone=dict(drop_path_rate=0.2))

train_cfg = dict(max_epochs=36)
param_scheduler = [
    _base_.param_scheduler[0],  # the warm-up
    dict(_base_.param_scheduler[1], end=36, milestones=[27, 33]),
]
