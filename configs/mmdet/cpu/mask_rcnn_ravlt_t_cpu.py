# Mask R-CNN on RAVLT-T for a few hundred images and a machine without a GPU: 12 epochs
# of images of 256 pixels, in steps of 4.
_base_ = '../mask_rcnn_ravlt_t_1x.py'

# Half the usual width, and half the mask head's convolutions: at this image size neck
# and heads would take most of the time, and 512 regions of each image far more.
width = 128
model = dict(
    neck=dict(out_channels=width),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # objects are smaller, too: anchors from 16 pixels on
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)),
)

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = (427, 256)
# Loading takes a few ms an image: processes of its own would only compete with training
# for the cores.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, **workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 12
train_cfg = dict(max_epochs=epochs, val_interval=2)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
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
    checkpoint=dict(max_keep_ckpts=1, save_best='coco/segm_mAP', rule='greater'),
)
log_processor = dict(window_size=10)
