# RAVLT-T classifier for a few thousand small images and a machine without a GPU: 24
# epochs of images of 64 pixels, in steps of 50.
_base_ = '../ravlt_t_in1k.py'

# Mixup, CutMix, drop path and averaged weights are for hundreds of epochs.
model = dict(backbone=dict(drop_path_rate=0.0), train_cfg=None)
custom_hooks = []

side = 64
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=side, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=side, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=side),
    dict(type='PackInputs'),
]
# Loading takes a few ms an image: processes of its own would only compete with training
# for the cores.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=50,
    **workers,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(**workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 24
train_cfg = dict(max_epochs=epochs, val_interval=2)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(base_batch_size=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=epochs,
        T_max=epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=1, save_best='accuracy/top1', rule='greater'),
)
log_processor = dict(window_size=10)
