# DeiT-T itself, with its class token, in the recipe of the others.
_base_ = '_base_/deit_t.py'

model = dict(
    backbone=dict(
        _delete_=True, type='VisionTransformer', arch='deit-tiny', drop_path_rate=0.1
    ),
    head=dict(type='VisionTransformerClsHead'),
)
