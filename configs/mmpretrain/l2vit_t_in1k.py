_base_ = '_base_/in1k_l2vit_300e.py'

model = dict(backbone=dict(arch='t'), head=dict(in_channels=768))
