_base_ = ['_base_/panoptic_fpn_1x.py', '../_base_/ravlt_t.py']

model = dict(backbone=_base_.ravlt, neck=dict(in_channels=_base_.ravlt_channels))
