_base_ = '_base_/swin_t.py'

model = dict(backbone=dict(kind='hydra'))
