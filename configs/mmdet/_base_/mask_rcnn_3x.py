# Mask R-CNN with RAVLT. A leaf adds the variant.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'coco_instance_3x.py']
custom_imports = dict(imports=['mmravlt'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='RAVLT',
        norm_cfg=dict(type='SyncBN'),
        out_channels_last=True,
    ),
)
