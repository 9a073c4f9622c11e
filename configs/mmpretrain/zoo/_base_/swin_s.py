# Swin-S, otherwise as Swin-T.
_base_ = './swin_t.py'

model = dict(backbone=dict(backbone=dict(arch='small', drop_path_rate=0.3)))
