_base_ = [
    '../semantic_fpn_ravlt_t_1x.py',
    '../../_base_/ablation/without_output_augmentation.py',
]

# No weights of this ablation are published. Train it on ImageNet first, with the config
# of mmpretrain/ablation, which leaves them here; or give another place.
checkpoint = 'work_dirs/ravlt_t_without_output_augmentation_in1k/epoch_300.pth'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(init_cfg=init_cfg, **_base_.ablation))
