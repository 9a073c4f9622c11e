_base_ = ['../mask_rcnn_ravlt_t_1x.py', '../../_base_/ablation/kappa_relu.py']

# No weights of this ablation are published. Train it on ImageNet first, with the config
# of mmpretrain/ablation, which leaves them here; or give another place.
checkpoint = 'work_dirs/ravlt_t_kappa_relu_in1k/epoch_300.pth'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(init_cfg=init_cfg, **_base_.ablation))
