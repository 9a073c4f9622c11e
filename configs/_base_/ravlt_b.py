# RAVLT-B: ImageNet-1K weights of the authors' release, and what a neck receives.
ravlt = dict(
    arch='b',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/aldjalkdf/RAVLT/resolve/main/RAVLT_B.pth',
    ),
)
ravlt_channels = [96, 192, 384, 512]
