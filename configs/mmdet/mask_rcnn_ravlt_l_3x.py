_base_ = ['_base_/mask_rcnn_3x.py', '../_base_/ravlt_l.py']

model = dict(backbone=_base_.ravlt, neck=dict(in_channels=_base_.ravlt_channels))

# The release trained L with 1 image on each of 8 GPUs.
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
