# UperNet with L2ViT: what differs from RAVLT's. A leaf adds the variant.
_base_ = 'upernet_2x.py'

# As in the release: batch statistics of each GPU alone in the backbone. (In the heads
# the release's file has BN, and SyncBN in a comment beside it; they keep SyncBN here.)
model = dict(
    backbone=dict(type='L2ViT', norm_cfg=dict(type='BN'), drop_path_rate=0.3),
)

# float32, weight decay on every parameter.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
)
