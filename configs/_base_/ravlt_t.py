# RAVLT-T: ImageNet-1K weights of the authors' release, and what a neck receives.
ravlt = dict(
    arch='t',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/aldjalkdf/RAVLT/resolve/main/RAVLT_T.pth',
    ),
)
ravlt_channels = [64, 128, 256, 512]
