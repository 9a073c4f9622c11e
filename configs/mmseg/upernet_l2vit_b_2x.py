_base_ = ['_base_/upernet_l2vit_2x.py', '../_base_/l2vit_b.py']

model = dict(
    backbone=_base_.l2vit,
    decode_head=dict(in_channels=_base_.l2vit_channels),
    auxiliary_head=dict(in_channels=_base_.l2vit_channels[2]),
)
