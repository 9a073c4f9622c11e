# Semantic FPN on RAVLT-T for a few hundred images and a machine without a GPU: 800
# iterations of 4 crops of 192×192 pixels, out of images whose shorter side is 256.
_base_ = '../semantic_fpn_ravlt_t_1x.py'

# Half the usual width: at this image size the neck would take most of the time.
width = 128
crop = (192, 192)
model = dict(
    data_preprocessor=dict(size=crop),
    neck=dict(out_channels=width),
    decode_head=dict(in_channels=[width] * 4),
)

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = (1024, 256)
train_pipeline[2]['ratio_range'] = (0.75, 1.5)
train_pipeline[3]['crop_size'] = crop
# Loading takes a few ms an image: processes of its own would only compete with training
# for the cores.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, **workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

iterations = 800
train_cfg = dict(max_iters=iterations, val_interval=100)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=0,
        end=iterations,
        T_max=iterations,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=100, max_keep_ckpts=1, save_best='mIoU', rule='greater'),
)
log_processor = dict(window_size=10)
