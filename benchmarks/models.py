"""Backbones and whole models, by the names that the command line knows."""

import math
import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmravlt  # (first: mmdet cannot be imported without its ops)
from mmravlt import tasks
from mmravlt.models import RAVLT

from .errors import BenchmarkError
from .measure import Condition, Step, available_bytes, module_step
from .peer import ReleaseFormulas

# Library, settings, channels of the four maps. All without stochastic depth.
# fmt: off
OTHERS = {
    'swin_t': ('mmdet', dict(type='SwinTransformer', drop_path_rate=0.0),
               (96, 192, 384, 768)),
    'convnext_t': ('mmpretrain', dict(type='ConvNeXt', arch='tiny',
                                      gap_before_final_norm=False),
                   (96, 192, 384, 768)),
    'resnet_50': ('mmdet', dict(type='ResNet', depth=50, norm_eval=False),
                  (256, 512, 1024, 2048)),
    'pvt_v2_b1': ('mmdet', dict(type='PyramidVisionTransformerV2', embed_dims=64,
                                num_layers=[2, 2, 2, 2], drop_path_rate=0.0),
                  (64, 128, 320, 512)),
    'pvt_v2_b2': ('mmdet', dict(type='PyramidVisionTransformerV2', embed_dims=64,
                                num_layers=[3, 4, 6, 3], drop_path_rate=0.0),
                  (64, 128, 320, 512)),
}
# fmt: on
DEFAULT = [
    *('ravlt_t', 'ravlt_t_llll', 'release_t', 'release_t_llll'),
    *('swin_t', 'convnext_t', 'resnet_50', 'pvt_v2_b2'),
]
KNOWN = (
    'ravlt_{t,s,b,l} and release_{t,s,b,l}, both also with _llll (linear attention in '
    'all stages), ravlt also with _optimized (inference), _cp or _selective '
    f'(training); {", ".join(OTHERS)}'
)
OWN = ('ravlt', 'ravlt_optimized')  # the backbone that a config has itself
_NAME = re.compile(
    r'(?P<kind>ravlt|release)_(?P<arch>[tsbl])(?P<llll>_llll)?'
    r'(?:_(?P<option>optimized|cp|selective))?'
)


def parse(name: str) -> dict[str, str | None] | None:
    """Parts of the name of a RAVLT or of its peer; None for other backbones.

    Raises:
        BenchmarkError: if there is no such backbone, or its library is missing.
    """
    if name in OTHERS:
        library = OTHERS[name][0]
        if not find_spec(library):
            raise BenchmarkError(f'{name} needs {library}, which is not installed.')
        return None
    match = _NAME.fullmatch(name)
    if not match or (match['kind'] == 'release' and match['option']):
        raise BenchmarkError(f'there is no backbone {name}; known are {KNOWN}.')
    return match.groupdict()


def default_names() -> list[str]:
    """The backbones that are compared by default, where their library is there."""
    return [n for n in DEFAULT if n not in OTHERS or find_spec(OTHERS[n][0])]


def check_names(names: Sequence[str], mode: str, own: Sequence[str] = ()) -> None:
    """Make sure that every name is known, stands once and fits the mode.

    Args:
        names (Sequence[str]): of backbones.
        mode (str): 'infer' or 'train'.
        own (Sequence[str]): names that are known besides.

    Raises:
        BenchmarkError: if one does not.
    """
    for name in names:
        parts = None if name in own else parse(name)
        option = parts['option'] if parts else name.rpartition('_')[2]
        needed = {'optimized': 'infer', 'cp': 'train', 'selective': 'train'}
        if needed.get(option, mode) != mode:
            raise BenchmarkError(f'{name} is for --mode {needed[option]} only.')
    if len(set(names)) < len(names):
        raise BenchmarkError(f'a name stands twice in {" ".join(names)}; give it once.')


def channels_of(name: str) -> tuple[int, ...]:
    """Channels of the four maps of a backbone."""
    parts = parse(name)
    return RAVLT.arch_zoo[parts['arch']]['embed_dims'] if parts else OTHERS[name][2]


def build_backbone(name: str) -> nn.Module:
    """A backbone with random weights and without stochastic depth.

    Returns:
        nn.Module: maps images (B, 3, H, W) to four maps of strides 4, 8, 16, 32.
    """
    parts = parse(name)
    if parts is None:
        library, settings, _ = OTHERS[name]
        registry = import_module(f'{library}.registry').MODELS
        cfg = dict(settings, out_indices=(0, 1, 2, 3))
        with DefaultScope.overwrite_default_scope(library):
            return registry.build(cfg)
    last = 'rala' if parts['llll'] else 'softmax'
    settings = dict(
        arch=parts['arch'],
        attention=('rala', 'rala', last, last),
        norm_cfg=dict(type='BN'),
    )
    if parts['kind'] == 'release':
        return ReleaseFormulas(**settings)
    with_cp = {'cp': True, 'selective': 'selective'}.get(parts['option'], False)
    # Maps as in our detection and segmentation configs.
    settings['out_channels_last'] = True
    model = RAVLT(**settings, drop_path_rate=0.0, with_cp=with_cp)
    return optimize(model) if parts['option'] == 'optimized' else model


def optimize(model: nn.Module) -> nn.Module:
    """The backbone as :func:`mmravlt.optimize_for_inference` returns it."""
    return mmravlt.optimize_for_inference(model.eval())


def backbone_step(name: str, size: tuple[int, int], condition: Condition) -> Step:
    """A step of a backbone on random images.

    Args:
        name (str): of the backbone.
        size (tuple[int, int]): height and width in pixels.
        condition (Condition): mode, device, batch.

    Returns:
        Step: in training, the loss is the sum of the maps' mean squares.
    """
    torch.manual_seed(0)
    model = build_backbone(name).to(condition.device)
    images = torch.randn(condition.batch, 3, *size, device=condition.device)

    def run() -> tuple[Tensor, ...] | Tensor:
        maps = model(images)
        if condition.mode == 'infer':
            return maps
        return sum(y.float().square().mean() for y in maps)

    return module_step(model, run, condition)


def reason_to_skip(
    name: str, size: tuple[int, int], condition: Condition
) -> str | None:
    """A sentence if the N×N matrices of the peer's softmax cannot fit into memory.

    Only asked for the CPU, where the system may end the whole process; a GPU refuses
    an allocation, and the others go on.
    """
    parts = parse(name)
    if condition.device != 'cpu' or not parts or parts['kind'] != 'release':
        return None
    if parts['llll']:
        return None
    arch = RAVLT.arch_zoo[parts['arch']]
    tokens = math.prod(math.ceil(side / 16) for side in size)
    # Scores and weights at one time; training keeps the weights of every block.
    matrices = 2 if condition.mode == 'infer' else 1 + arch['depths'][2]
    width = 4 if condition.dtype == 'float32' else 2
    needed = matrices * condition.batch * arch['num_heads'][2] * tokens**2 * width
    return too_large(name, size, tokens, needed)


def too_large(name: str, size: tuple[int, int], tokens: int, needed: int) -> str | None:
    """A sentence if N×N matrices need more memory than is available."""
    free = available_bytes()
    if free is None or needed <= free:
        return None
    return (
        f'{size[0]}x{size[1]}: {name} is left out; its {tokens}×{tokens} attention '
        f'matrices need {needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB available.'
    )


def read_model(path: str) -> Config:
    """Read a config file of mmdet, mmseg or mmpretrain.

    Raises:
        BenchmarkError: if it is not there or describes no such model.
    """
    if not Path(path).is_file():
        raise BenchmarkError(f'there is no config file {path}.')
    cfg = Config.fromfile(path)
    try:
        tasks.of(cfg)
    except tasks.TaskError as error:
        raise BenchmarkError(f'{path}: {error}.') from None
    if 'backbone' not in cfg.get('model', {}):
        raise BenchmarkError(f'{path} describes no model with a backbone.')
    return cfg


def default_size(cfg: Config) -> tuple[int, int]:
    """Height and width at which the paper counts models of this task."""
    return tasks.of(cfg).image_size


def build_model(path: str, backbone: str) -> nn.Module:
    """The model of a config file with random weights, on one device.

    Args:
        path (str): config file of mmdet, mmseg or mmpretrain.
        backbone (str): 'ravlt' keeps the config's own, 'ravlt_optimized' too but
            optimised for inference; other names replace it, and what reads its
            maps gets their channels. A classifier then reads the replacement's
            last map, which is normalised where RAVLT's own is not.

    Returns:
        nn.Module: SyncBN is replaced by BN.
    """
    return model_of(read_model(path), backbone)


def model_of(cfg: Config, backbone: str) -> nn.Module:
    """As :func:`build_model`, of a config that is read; its channels are changed."""
    model_cfg = cfg.model
    model_cfg.backbone.init_cfg = None
    own = backbone in OWN
    if own and model_cfg.backbone.type.rpartition('.')[2] == 'RAVLT':
        model_cfg.backbone.drop_path_rate = 0.0
    if not own:
        set_channels(model_cfg, channels_of(backbone))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(model_cfg)
    if backbone == 'ravlt_optimized':
        model.backbone = optimize(model.backbone)
    if not own:
        indices = model_cfg.backbone.get('out_indices', (0, 1, 2, 3))
        model.backbone = _Maps(build_backbone(backbone), indices)
    return revert_sync_batchnorm(model)


class _Maps(nn.Module):
    """Some of the maps of a backbone."""

    def __init__(self, backbone: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.indices = indices

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        return tuple(maps[i] for i in self.indices)


def set_channels(model_cfg: Config, channels: Sequence[int]) -> None:
    """Tell what reads the backbone's maps how many channels these have."""
    neck = model_cfg.get('neck')
    if neck and 'in_channels' in neck:
        is_one = isinstance(neck.in_channels, int)
        neck.in_channels = channels[-1] if is_one else list(channels)
        return
    if 'head' in model_cfg:  # a classifier whose neck only pools
        model_cfg.head.in_channels = channels[-1]
    for key in ('decode_head', 'auxiliary_head'):
        if head := model_cfg.get(key):
            picked = head.in_index
            head.in_channels = (
                channels[picked]
                if isinstance(picked, int)
                else [channels[i] for i in picked]
            )
    if neck is not None and 'decode_head' in model_cfg:
        raise BenchmarkError(f'the neck {neck.type} takes no in_channels to set.')


def model_step(
    path: str, backbone: str, size: tuple[int, int], condition: Condition
) -> Step:
    """A step of a whole model: prediction, or the losses and their gradients.

    Images are random and already normalised; targets are made by hand. Weights are
    random, too, so a detector finds next to nothing: what follows proposals costs
    about the same for every backbone.

    Args:
        path (str): config file.
        backbone (str): as in :func:`build_model`.
        size (tuple[int, int]): height and width of the images in pixels.
        condition (Condition): mode, device, batch.
    """
    torch.manual_seed(0)
    task = tasks.of(read_model(path))
    model = build_model(path, backbone).to(condition.device)
    images = torch.randn(condition.batch, 3, *size, device=condition.device)
    samples = [task.sample(size).to(condition.device) for _ in images]

    def run() -> object:
        with DefaultScope.overwrite_default_scope(task.package):
            if condition.mode == 'infer':
                return model(images, samples, mode='predict')
            losses = model(images, samples, mode='loss')
        return model.parse_losses(losses)[0]

    return module_step(model, run, condition)
