# L2ViT-T: ImageNet-1K weights of the author's release, and what a neck receives.
l2vit = dict(
    type='L2ViT',
    arch='t',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/ChuanyangZheng/L2ViT/releases/download/'
        'v1.0/L2ViT-Tiny-checkpoint-best-ema.pth',
    ),
)
l2vit_channels = [96, 192, 384, 768]
