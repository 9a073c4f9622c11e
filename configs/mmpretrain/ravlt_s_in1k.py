_base_ = '_base_/in1k_300e.py'

model = dict(backbone=dict(arch='s'), neck=dict(in_channels=512))
