# ImageNet-1K classification with L2ViT: the release's recipe, which is ConvNeXt's
# (https://github.com/facebookresearch/ConvNeXt), where it differs from RAVLT's.
_base_ = 'in1k_300e.py'

model = dict(
    # A leaf adds the variant. Its drop path is the release's for B; for T and S the
    # release names none, and the variant's own is chosen by this project.
    # The release's final norm is the last stage's output norm here.
    backbone=dict(
        _delete_=True, type='L2ViT', out_indices=(3,), norm_cfg=dict(type='BN')
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)

# 8 GPUs × 128 images × 4 steps that are summed up: 4096 in one step of the optimiser.
# (Only the first two are counted in base_batch_size.) No repeated augmentation.
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True)
)
# float32, no gradient clipping. No decay on parameters of one dimension, as in timm.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    accumulative_counts=4,
    optimizer=dict(
        type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05
    ),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)

# In each iteration: 20 epochs of linear warm-up from nearly 0, and a cosine of 280
# epochs down to 1e-6.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]

# Decay 0.9999 in each step of the optimiser, also of the batch statistics. The
# published files are those of the best average.
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=1e-4,
        interval=4,
        update_buffers=True,
        evaluate_on_origin=True,
    )
]
