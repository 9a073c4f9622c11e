_base_ = ['../ravlt_t_in1k.py', '../../_base_/ablation/kappa_softmax.py']

model = dict(backbone=_base_.ablation)
