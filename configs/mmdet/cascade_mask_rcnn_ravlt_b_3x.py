_base_ = ['_base_/cascade_mask_rcnn_3x.py', '../_base_/ravlt_b.py']

model = dict(backbone=_base_.ravlt, neck=dict(in_channels=_base_.ravlt_channels))
