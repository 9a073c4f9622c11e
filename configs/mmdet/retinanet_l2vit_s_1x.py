_base_ = ['_base_/retinanet_l2vit_1x.py', '../_base_/l2vit_s.py']

model = dict(backbone=_base_.l2vit, neck=dict(in_channels=_base_.l2vit_channels[1:]))
