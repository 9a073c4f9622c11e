_base_ = '_base_/deit_t.py'

model = dict(backbone=dict(kind='enhanced'))
