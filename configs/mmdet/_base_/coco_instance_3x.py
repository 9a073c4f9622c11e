# COCO instance segmentation, 36 epochs of images in many sizes.
_base_ = 'coco_instance_multi_scale.py'

train_cfg = dict(max_epochs=36)
param_scheduler = [
    _base_.param_scheduler[0],  # the warm-up
    dict(_base_.param_scheduler[1], end=36, milestones=[27, 33]),
]
