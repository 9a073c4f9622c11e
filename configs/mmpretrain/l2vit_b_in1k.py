_base_ = '_base_/in1k_l2vit_300e.py'

model = dict(backbone=dict(arch='b'), head=dict(in_channels=1024))
