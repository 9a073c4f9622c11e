# L2ViT-B: ImageNet-1K weights of the author's release, and what a neck receives.
l2vit = dict(
    type='L2ViT',
    arch='b',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/ChuanyangZheng/L2ViT/releases/download/'
        'v1.0/L2ViT-Base-checkpoint-best-ema.pth',
    ),
)
l2vit_channels = [128, 256, 512, 1024]
