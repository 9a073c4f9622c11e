_base_ = ['_base_/mask_rcnn_l2vit_3x.py', '../_base_/l2vit_b.py']

model = dict(
    backbone=dict(**_base_.l2vit, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.l2vit_channels),
)
