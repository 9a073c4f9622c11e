_base_ = '_base_/in1k_300e.py'

# The paper says drop path 0.1; the release trains T with 0.05.
model = dict(backbone=dict(arch='t', drop_path_rate=0.05), neck=dict(in_channels=512))
