# Mask R-CNN on RAVLT-T for images of a few shapes: small enough to be trained from
# random weights on a CPU in minutes. `demo.py` passes the data with --data.
_base_ = '../configs/mmdet/mask_rcnn_ravlt_t_1x.py'

# Half the usual width, and half the mask head's convolutions: at this image size
# neck and heads would take most of the time.
width = 128
# An image has at most four shapes, so few proposals are enough.
model = dict(
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    neck=dict(out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(max_per_img=10),
    ),
)

# The base config's pipelines, except that images keep their own size and are
# flipped in every direction, which makes up for how few they are.
scale = (128, 128)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=0.75,
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
# Loading takes 2 ms an image: processes of its own would only compete with
# training for the cores.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, **workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 4  # of 50 steps
train_cfg = dict(max_epochs=epochs)
# Random weights allow larger steps than the published ones do.
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(
    logger=dict(interval=10),
    # Only the last weights are kept, without the optimiser's state.
    checkpoint=dict(interval=epochs, save_optimizer=False),
)
log_processor = dict(window_size=10)
randomness = dict(seed=0)
