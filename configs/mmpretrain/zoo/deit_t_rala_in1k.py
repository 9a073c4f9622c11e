_base_ = '_base_/deit_t.py'

# The gate's C×C weights in each block are taken from the FFN: 3.5 C instead of 4 C.
ffn = dict(feedforward_channels=672)
model = dict(backbone=dict(kind='rala', backbone=dict(layer_cfgs=ffn)))
