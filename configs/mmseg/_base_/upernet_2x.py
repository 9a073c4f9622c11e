# UperNet with RAVLT, 160,000 iterations. A leaf adds the variant.
_base_ = 'ade20k.py'

model = dict(
    decode_head=dict(
        type='UPerHead',
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    # On the third stage's map, in training only.
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=512.0,
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # No decay on any parameter whose name contains 'norm'.
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
# Both from the start: the warm-up multiplies the linear decay, as in mmcv 1.x.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=160000, by_epoch=False),
]
train_cfg = dict(max_iters=160000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000, save_best='mIoU'))
