# DeiT-T with another attention, Table 8 of the paper, in RAVLT's recipe, which is that
# of DeiT. A leaf adds model.backbone.kind. There is no class token, which has no place
# on a map: the tokens' mean is classified.
_base_ = '../../_base_/in1k_300e.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='WithGlobalAttention',
        backbone=dict(
            type='VisionTransformer',
            arch='deit-tiny',
            with_cls_token=False,
            out_type='avg_featmap',
            final_norm=False,  # the mean is normalised instead
            drop_path_rate=0.1,
        ),
    ),
    neck=None,
    head=dict(in_channels=192),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
# As in DeiT, neither learnt positions nor the class token, if any, are decayed.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'cls_token': dict(decay_mult=0.0),
        }
    )
)
