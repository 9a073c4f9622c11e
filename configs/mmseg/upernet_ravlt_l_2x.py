_base_ = ['_base_/upernet_2x.py', '../_base_/ravlt_l.py']

model = dict(
    backbone=_base_.ravlt,
    decode_head=dict(in_channels=_base_.ravlt_channels),
    auxiliary_head=dict(in_channels=_base_.ravlt_channels[2]),
)
