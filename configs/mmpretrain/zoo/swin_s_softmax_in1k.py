# Swin-S itself, with its shifted windows, in the recipe of the others.
_base_ = '_base_/swin_s.py'

model = dict(
    backbone=dict(
        _delete_=True, type='SwinTransformer', arch='small', drop_path_rate=0.3
    )
)
# As in Swin, biases of positions are not decayed.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)}
    )
)
