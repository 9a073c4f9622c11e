_base_ = '_base_/swin_s.py'

model = dict(backbone=dict(kind='focused'))
