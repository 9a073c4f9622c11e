# RAVLT-L: ImageNet-1K weights of the authors' release, and what a neck receives.
ravlt = dict(
    arch='l',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/aldjalkdf/RAVLT/resolve/main/RAVLT_L.pth',
    ),
)
ravlt_channels = [96, 192, 448, 640]
