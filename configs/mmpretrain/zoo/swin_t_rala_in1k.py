_base_ = '_base_/swin_t.py'

# The gate's C×C weights in each block are taken from the FFN: 3.5 C instead of 4 C.
ffn = dict(block_cfgs=dict(ffn_ratio=3.5))
model = dict(backbone=dict(kind='rala', backbone=dict(stage_cfgs=ffn)))
