_base_ = ['_base_/retinanet_l2vit_1x.py', '../_base_/l2vit_b.py']

model = dict(
    backbone=dict(**_base_.l2vit, drop_path_rate=0.2),
    neck=dict(in_channels=_base_.l2vit_channels[1:]),
)
