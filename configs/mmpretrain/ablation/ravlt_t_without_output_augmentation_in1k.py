_base_ = ['../ravlt_t_in1k.py', '../../_base_/ablation/without_output_augmentation.py']

model = dict(backbone=_base_.ablation)
