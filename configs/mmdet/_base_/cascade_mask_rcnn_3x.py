# Cascade Mask R-CNN with RAVLT. A leaf adds the variant.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', 'coco_instance_3x.py']
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='RAVLT',
        norm_cfg=dict(type='SyncBN'),
        out_channels_last=True,
    ),
    roi_head=dict(
        # Box heads of four convolutions and one linear layer, that regress
        # decoded boxes for each class. Only the coder differs between stages.
        bbox_head=[
            dict(
                type='Shared4Conv1FCBBoxHead',
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                norm_cfg=dict(type='SyncBN'),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[xy, xy, wh, wh],
                ),
                loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for xy, wh in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
        ],
    ),
)

# No decay on norm layers either, whatever their names: the box heads' are 'bn'.
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
