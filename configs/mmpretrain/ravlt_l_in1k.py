_base_ = '_base_/in1k_300e.py'

model = dict(backbone=dict(arch='l'), neck=dict(in_channels=640))
