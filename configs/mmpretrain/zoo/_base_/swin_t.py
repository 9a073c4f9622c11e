# Swin-T with another attention, Table 8 of the paper, in RAVLT's recipe. A leaf adds
# model.backbone.kind. Attention is global in every block, so there are no windows, no
# shifts and no biases of positions.
_base_ = '../../_base_/in1k_300e.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='WithGlobalAttention',
        backbone=dict(type='SwinTransformer', arch='tiny', drop_path_rate=0.2),
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=768),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
