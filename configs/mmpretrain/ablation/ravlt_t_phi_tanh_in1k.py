_base_ = ['../ravlt_t_in1k.py', '../../_base_/ablation/phi_tanh.py']

model = dict(backbone=_base_.ablation)
