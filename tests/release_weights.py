"""The weights that the authors published: names, shapes and layouts of the files.

The files themselves cannot be had here. The backbone's names were recorded from
the released code (``data/release_backbone_keys.json``); those of necks and heads
are what mmdet 2.x and mmseg 0.x, with which the release was trained, called the
parts of these models, written down from their sources. None are taken from the
models that the tests load.
"""

import json
import zlib
from pathlib import Path

import torch

from mmravlt.ops import rope2d_angles

DATA = Path(__file__).parent / 'data'
RECORDED = json.loads((DATA / 'release_backbone_keys.json').read_text()) | {
    f'l2vit_{variant}': shapes
    for variant, shapes in json.loads(
        (DATA / 'release_l2vit_backbone_keys.json').read_text()
    ).items()
}
CHANNELS = {
    't': (64, 128, 256, 512),
    's': (64, 128, 320, 512),
    'b': (96, 192, 384, 512),
    'l': (96, 192, 448, 640),
    'l2vit_t': (96, 192, 384, 768),
    'l2vit_s': (96, 192, 384, 768),
    'l2vit_b': (128, 256, 512, 1024),
}


def conv(name, out, into, size, bias=True):
    names = {f'{name}.weight': (out, into, size, size)}
    return {**names, f'{name}.bias': (out,)} if bias else names


def linear(name, out, into):
    return {f'{name}.weight': (out, into), f'{name}.bias': (out,)}


def batch_norm(name, channels):
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    names = {f'{name}.{part}': (channels,) for part in parts}
    return {**names, f'{name}.num_batches_tracked': ()}


def conv_norm(name, out, into, size):
    return {
        **conv(f'{name}.conv', out, into, size, bias=False),
        **batch_norm(f'{name}.bn', out),
    }


def join(*groups):
    return {name: shape for group in groups for name, shape in group.items()}


def fpn(channels, extra=()):
    return join(
        *(
            conv(f'neck.lateral_convs.{i}.conv', 256, c, 1)
            for i, c in enumerate(channels)
        ),
        *(
            conv(f'neck.fpn_convs.{i}.conv', 256, c, 3)
            for i, c in enumerate([256] * len(channels) + list(extra))
        ),
    )


def retina_head(channels, classes):
    return join(
        # from stage 2; two more levels, the first on the backbone's last map
        fpn(channels[1:], extra=(channels[3], 256)),
        *(conv(f'bbox_head.cls_convs.{i}.conv', 256, 256, 3) for i in range(4)),
        *(conv(f'bbox_head.reg_convs.{i}.conv', 256, 256, 3) for i in range(4)),
        conv('bbox_head.retina_cls', 9 * classes, 256, 3),
        conv('bbox_head.retina_reg', 9 * 4, 256, 3),
    )


def rpn():
    return join(
        conv('rpn_head.rpn_conv', 256, 256, 3),
        conv('rpn_head.rpn_cls', 3, 256, 1),
        conv('rpn_head.rpn_reg', 12, 256, 1),
    )


def mask_head(name, classes):
    return join(
        *(conv(f'{name}.convs.{i}.conv', 256, 256, 3) for i in range(4)),
        conv(f'{name}.upsample', 256, 256, 2),
        conv(f'{name}.conv_logits', classes, 256, 1),
    )


def mask_rcnn(channels, classes):
    box = 'roi_head.bbox_head'
    return join(
        fpn(channels),
        rpn(),
        linear(f'{box}.shared_fcs.0', 1024, 256 * 7 * 7),
        linear(f'{box}.shared_fcs.1', 1024, 1024),
        linear(f'{box}.fc_cls', classes + 1, 1024),
        linear(f'{box}.fc_reg', 4 * classes, 1024),
        mask_head('roi_head.mask_head', classes),
    )


def cascade_mask_rcnn(channels, classes):
    groups = []
    for i in range(3):
        box = f'roi_head.bbox_head.{i}'
        groups += [
            *(conv_norm(f'{box}.shared_convs.{j}', 256, 256, 3) for j in range(4)),
            linear(f'{box}.shared_fcs.0', 1024, 256 * 7 * 7),
            linear(f'{box}.fc_cls', classes + 1, 1024),
            linear(f'{box}.fc_reg', 4 * classes, 1024),
            mask_head(f'roi_head.mask_head.{i}', classes),
        ]
    return join(fpn(channels), rpn(), *groups)


def semantic_fpn(channels, classes):
    # Each level: convolutions, with an upsampling after each but on the first level.
    convolutions = {0: (0,), 1: (0,), 2: (0, 2), 3: (0, 2, 4)}
    return join(
        fpn(channels),
        *(
            conv_norm(f'decode_head.scale_heads.{i}.{j}', 128, 128 if j else 256, 3)
            for i, places in convolutions.items()
            for j in places
        ),
        conv('decode_head.conv_seg', classes, 128, 1),
    )


def upernet(channels, classes):
    head = 'decode_head'
    return join(
        *(
            conv_norm(f'{head}.psp_modules.{i}.1', 512, channels[3], 1)
            for i in range(4)
        ),
        conv_norm(f'{head}.bottleneck', 512, channels[3] + 4 * 512, 3),
        *(
            conv_norm(f'{head}.lateral_convs.{i}', 512, channels[i], 1)
            for i in range(3)
        ),
        *(conv_norm(f'{head}.fpn_convs.{i}', 512, 512, 3) for i in range(3)),
        conv_norm(f'{head}.fpn_bottleneck', 512, 4 * 512, 3),
        conv(f'{head}.conv_seg', classes, 512, 1),
        conv_norm('auxiliary_head.convs.0', 256, channels[2], 3),
        conv('auxiliary_head.conv_seg', classes, 256, 1),
    )


HEADS = {
    'retinanet': retina_head,
    'mask_rcnn': mask_rcnn,
    'cascade_mask_rcnn': cascade_mask_rcnn,
    'semantic_fpn': semantic_fpn,
    'upernet': upernet,
}
CLASSES = {'semantic_fpn': 150, 'upernet': 150}  # the detectors: 80

# The file of each config: family, variant.
FILES = {
    **{f'mmpretrain/ravlt_{v}_in1k.py': ('classifier', v) for v in 'tsbl'},
    **{f'mmdet/retinanet_ravlt_{v}_1x.py': ('retinanet', v) for v in 'tsbl'},
    **{f'mmdet/mask_rcnn_ravlt_{v}_1x.py': ('mask_rcnn', v) for v in 'tsbl'},
    **{f'mmdet/mask_rcnn_ravlt_{v}_3x.py': ('mask_rcnn', v) for v in 'sbl'},
    **{
        f'mmdet/cascade_mask_rcnn_ravlt_{v}_3x.py': ('cascade_mask_rcnn', v)
        for v in 'sbl'
    },
    **{f'mmseg/semantic_fpn_ravlt_{v}_1x.py': ('semantic_fpn', v) for v in 'tsbl'},
    **{f'mmseg/upernet_ravlt_{v}_2x.py': ('upernet', v) for v in 'sbl'},
    # Of L2ViT, classifiers are published; the rest is what its training would give.
    **{
        f'{path.format(v)}.py': (family, f'l2vit_{v}')
        for path, family in (
            ('mmpretrain/l2vit_{}_in1k', 'classifier'),
            ('mmdet/retinanet_l2vit_{}_1x', 'retinanet'),
            ('mmdet/mask_rcnn_l2vit_{}_1x', 'mask_rcnn'),
            ('mmdet/mask_rcnn_l2vit_{}_3x', 'mask_rcnn'),
            ('mmseg/upernet_l2vit_{}_2x', 'upernet'),
        )
        for v in 'tsb'
    },
}


def is_l2vit(variant):
    return variant.startswith('l2vit_')


def model_name(variant):
    """What messages call it, such as RAVLT-T."""
    model = 'L2ViT' if is_l2vit(variant) else 'RAVLT'
    return f'{model}-{variant[-1].upper()}'


def released_shapes(family, variant):
    """Names and shapes of the weights in a released file."""
    backbone = RECORDED[variant]
    channels = CHANNELS[variant]
    if family == 'classifier' and is_l2vit(variant):
        return join(
            {n: s for n, s in backbone.items() if not n.startswith('norm')},
            {'norm.weight': (channels[3],), 'norm.bias': (channels[3],)},
            linear('head', 1000, channels[3]),
        )
    if family == 'retinanet' and is_l2vit(variant):  # it takes three of the maps
        backbone = {n: s for n, s in backbone.items() if not n.startswith('norm0.')}
    if family == 'classifier':
        return join(
            {n: s for n, s in backbone.items() if not n.startswith('extra_norms.')},
            conv('proj', 1024, channels[3], 1),
            batch_norm('norm', 1024),
            conv('head', 1000, 1024, 1),
        )
    return join(
        {f'backbone.{name}': shape for name, shape in backbone.items()},
        HEADS[family](channels, CLASSES.get(family, 80)),
    )


def fill(shapes, device='cpu'):
    """Fixed values, different in every name and place; real RoPE frequencies."""
    weights = {}
    for name, shape in shapes.items():
        shape = tuple(shape)
        if device == 'meta':
            weights[name] = torch.empty(shape, device='meta')
        elif name.endswith('RoPE.angle'):
            weights[name] = rope2d_angles(2 * shape[0])
        elif name.endswith('num_batches_tracked'):
            weights[name] = torch.tensor(zlib.crc32(name.encode()))
        else:
            places = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
            begin = zlib.crc32(name.encode()) % 9973
            weights[name] = ((places + begin) % 9973 / 9973).view(shape)
    return weights


def released_file(family, variant, device='cpu'):
    """What ``torch.load`` gives of a released file."""
    weights = fill(released_shapes(family, variant), device)
    if family == 'classifier':
        return {'model': weights, 'optimizer': {'state': {}}, 'epoch': 299}
    meta = {'mmcv_version': '1.7.1', 'epoch': 12, 'CLASSES': ('cat', 'dog')}
    return {'meta': meta, 'state_dict': weights, 'optimizer': {'state': {}}}


def name_in_model(name, family, variant='t'):
    """What a whole model of MMEngine calls a weight of a released file."""
    if family != 'classifier':
        return name
    for theirs, ours in (
        ('head', 'head.fc'),
        ('proj', 'neck.proj'),
        ('norm', 'backbone.norm3' if is_l2vit(variant) else 'neck.norm'),
    ):
        if name.startswith(f'{theirs}.'):
            return ours + name.removeprefix(theirs)
    return f'backbone.{name}'


def meta(shapes):
    """Weights of these shapes without values."""
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def backbone(variant='t', prefix=''):
    """Names and shapes of what a backbone of ours expects."""
    names = {n: tuple(s) for n, s in RECORDED[variant].items()}
    return {prefix + n: s for n, s in names.items() if not n.endswith('RoPE.angle')}


CLASSIFIER = meta(released_shapes('classifier', 't'))
DETECTOR = meta(released_shapes('mask_rcnn', 't'))
