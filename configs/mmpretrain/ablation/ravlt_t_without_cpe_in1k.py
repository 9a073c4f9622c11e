_base_ = ['../ravlt_t_in1k.py', '../../_base_/ablation/without_cpe.py']

model = dict(backbone=_base_.ablation)
