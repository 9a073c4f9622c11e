_base_ = '_base_/in1k_v2.py'

model = dict(backbone=dict(arch='l'), neck=dict(in_channels=640))
