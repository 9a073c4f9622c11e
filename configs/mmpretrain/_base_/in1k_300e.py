# ImageNet-1K classification with RAVLT: the release's recipe, which is DeiT's
# (https://github.com/facebookresearch/deit) through timm, in mmpretrain 1.x terms.
# ImageNet in data/imagenet/train and data/imagenet/val, one folder per class.
_base_ = [
    # RandomResizedCrop bicubic, flip, RandAugment as timm's rand-m9-mstd0.5-inc1,
    # random erasing with the mean and deviation of ImageNet; test at 256/224.
    # timm's colour jitter of 0.4 is not here: it has no effect beside RandAugment.
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    # A leaf adds the variant. It trains from random weights.
    backbone=dict(
        type='RAVLT', out_indices=(3,), output_norm=False, norm_cfg=dict(type='BN')
    ),
    neck=dict(type='RAVLTNeck', out_channels=1024, norm_cfg=dict(type='BN')),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    # One of the two for each batch, with equal probability.
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
)

# Repeated augmentation: three views of an image in one epoch, on different GPUs,
# and a third of the images. 8 GPUs × 128 images; without the last, smaller batch an
# epoch has 1251 iterations, as in DeiT.
train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    sampler=dict(type='RepeatAugSampler', num_repeats=3),
)
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader

# 5e-4 × batch / 512. No gradient clipping.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05
    ),
    # timm's rule: no decay on parameters of one dimension, which are all biases and
    # all norms. The layer scales gamma_1 and gamma_2 have the shape 1×C×1×1, so they
    # are decayed.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=1024)

# Once per epoch: a cosine of 300 epochs down to 1e-5, of which a warm-up from 1e-6
# replaces the first five. (Here the warm-up multiplies the cosine, which makes it
# smaller than timm's by 0.05% at most.) DeiT's 10 further epochs of cool-down never
# ran: its loop ends after 300.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=6),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=300,
        T_max=300,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Decay 0.99996, also of the batch statistics, as in timm. The averaged weights are the
# `state_dict` of a checkpoint and give `accuracy/top1`; the plain weights, by which
# DeiT judges, give `accuracy/top1_origin`. The average looks back on some 25000
# iterations, so much shorter trainings should leave it out: custom_hooks = [].
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=4e-5,
        update_buffers=True,
        evaluate_on_origin=True,
    )
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='auto'))

# All GPUs take the batch statistics of the first, as PyTorch does by default;
# MMEngine would leave each GPU its own.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
env_cfg = dict(cudnn_benchmark=True)
