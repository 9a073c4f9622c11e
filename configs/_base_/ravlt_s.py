# RAVLT-S: ImageNet-1K weights of the authors' release, and what a neck receives.
ravlt = dict(
    arch='s',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/aldjalkdf/RAVLT/resolve/main/RAVLT_S.pth',
    ),
)
ravlt_channels = [64, 128, 320, 512]
