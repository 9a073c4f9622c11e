_base_ = ['_base_/mask_rcnn_l2vit_3x.py', '../_base_/l2vit_t.py']

model = dict(backbone=_base_.l2vit, neck=dict(in_channels=_base_.l2vit_channels))
