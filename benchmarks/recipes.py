"""One recipe for each task, and a training by it of any backbone."""

import copy
import io
import re
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

import mmengine.device.utils as mmengine_device
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.utils import set_random_seed
from torch import Tensor, nn

import mmravlt
from mmravlt import tasks
from mmravlt.checkpoint import CheckpointError, load_file, load_weights, unwrap
from mmravlt.data import Prepared
from mmravlt.tasks.config import type_name
from mmravlt.training import OptionError, use_image_size

from . import models
from .errors import BenchmarkError
from .measure import device_name

# What is meant for 300 epochs of ImageNet and hinders short trainings
LONG_ONLY = ('RandAugment', 'RandomErasing')
# Norms of maps, which a classifier's file lacks
MAP_NORMS = re.compile(r'norm\d\.')
# Of the names that the authors' files have to those of mmdet
CONVERTERS = {
    'swin_t': ('mmdet.models.backbones.swin', 'swin_converter'),
    'pvt_v2_b1': ('mmdet.models.backbones.pvt', 'pvt_convert'),
    'pvt_v2_b2': ('mmdet.models.backbones.pvt', 'pvt_convert'),
}


@dataclass(frozen=True)
class Recipe:
    """What all backbones have in common.

    Attributes:
        config (str): as :func:`mmravlt.config_path` knows it.
        head (str): what is on the backbone, as people call it.
        second (str): a score that is told beside the task's own.
    """

    config: str
    head: str
    second: str


RECIPES = {
    'detection': Recipe(
        'mmdet/retinanet_ravlt_t_1x.py', 'RetinaNet', 'coco/bbox_mAP_50'
    ),
    'instance': Recipe('mmdet/mask_rcnn_ravlt_t_1x.py', 'Mask R-CNN', 'coco/bbox_mAP'),
    'segmentation': Recipe('mmseg/semantic_fpn_ravlt_t_1x.py', 'Semantic FPN', 'mAcc'),
    'classification': Recipe(
        'mmpretrain/ravlt_t_in1k.py',
        'average pooling and a linear layer',
        'accuracy/top5',
    ),
}


@dataclass(frozen=True)
class Setting:
    """What is the same for all trainings.

    Args:
        task (str): one of :data:`RECIPES`.
        size (int): shorter side of the images in pixels.
        batch (int | None): images of a step; the recipe's if None.
        workers (int): processes of each loader.
        device (str): 'cpu' or 'cuda'.
    """

    task: str
    size: int
    batch: int | None = None
    workers: int = 0
    device: str = 'cpu'


def default_size(task: str) -> int:
    """Shorter side of the images in pixels, at which the paper counts models."""
    return min(models.default_size(_config(task)))


def _config(task: str) -> Config:
    name = RECIPES[task].config
    library = name.split('/')[0]
    if not find_spec(library):
        raise BenchmarkError(f'{task} needs {library}, which is not installed.')
    return Config.fromfile(mmravlt.config_path(name))


def read(root: str, setting: Setting, options: dict) -> tuple[Config, Prepared]:
    """The config of a task with the data of a folder.

    Args:
        root (str): the folder.
        setting (Setting): what is the same for all trainings.
        options (dict): of :class:`mmravlt.data.DataOptions`.

    Returns:
        tuple: a config whose backbone is yet to be replaced, and what was found.

    Raises:
        BenchmarkError: if the data cannot be used.
    """
    cfg = _config(setting.task)
    if setting.task == 'classification':
        _shorten_classification(cfg)
    try:
        use_image_size(cfg, setting.size)
        data = tasks.use_custom_data(cfg, root, **options)
    except (tasks.DataError, OptionError) as error:
        raise BenchmarkError(str(error)) from None
    cfg.custom_hooks = []  # averaged weights
    cfg.optim_wrapper.type = 'OptimWrapper'  # float32 on all devices
    cfg.optim_wrapper.pop('loss_scale', None)
    # Each image once before any comes again; MMEngine waits 2 s where a loader ends.
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    if setting.batch:
        cfg.train_dataloader.batch_size = setting.batch
    batch = cfg.train_dataloader.batch_size
    images = data.splits['train']['images']
    if images < batch:
        raise BenchmarkError(
            f'{root} has {images} training images, --batch-size is {batch}; give '
            f'{images} or less.'
        )
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = setting.workers
        loader.persistent_workers = setting.workers > 0
    return cfg, data


def _shorten_classification(cfg: Config) -> None:
    """Leave out what only long trainings gain by, and what is RAVLT's own."""
    cfg.model.train_cfg = None  # Mixup and CutMix
    cfg.model.neck = dict(type='GlobalAveragePooling')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = [s for s in dataset.pipeline if type_name(s) not in LONG_ONLY]


def schedule(steps: int) -> list[dict]:
    """A warm-up over a tenth of the steps, then half a cosine to 0."""
    warm = steps // 10
    linear = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=warm)
    cosine = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False)
    cosine.update(begin=warm, end=steps, T_max=steps - warm)
    return [linear, cosine] if warm else [cosine]


def build(cfg: Config, name: str, seed: int, weights: str | None) -> nn.Module:
    """The model of a config with another backbone, initialised.

    Args:
        cfg (Config): of :func:`read`; it stays as it is.
        name (str): of the backbone.
        seed (int): of the weights.
        weights (str | None): file for the backbone; None for random weights.

    Raises:
        BenchmarkError: if the file cannot be used.
    """
    set_random_seed(seed)
    model = models.model_of(copy.deepcopy(cfg), name)
    backbone = model.backbone.backbone
    if name.startswith('release'):  # as RAVLT starts, whose names are the same
        ravlt = models.build_backbone(name.replace('release', 'ravlt'))
        backbone.load_state_dict(ravlt.state_dict())
    else:
        backbone.init_weights()
    if weights:
        try:
            _load(backbone, name, weights)
        except CheckpointError as error:
            raise BenchmarkError(f'--weights {name}={weights}: {error}') from None
    return model


def _load(backbone: nn.Module, name: str, path: str) -> None:
    """Load a file into a backbone, all but the norms of its maps."""
    if models.parse(name):
        load_weights(backbone, path)
        return
    given = unwrap(load_file(path))
    given = given.get('state_dict', given) if isinstance(given, dict) else {}
    fitting, lacking = _choose(given, backbone)
    if lacking and name in CONVERTERS:
        module, function = CONVERTERS[name]
        convert = getattr(import_module(module), function)
        fitting, lacking = _choose(convert(given), backbone)
    if lacking:
        raise BenchmarkError(
            f'--weights {name}={path}: the file lacks {len(lacking)} of the weights '
            f'of {name} or has them in other shapes, such as {lacking[0]}; give a '
            f'checkpoint of {models.OTHERS[name][0]} with this backbone.'
        )
    backbone.load_state_dict(fitting, strict=False)


def _choose(
    given: dict[str, Tensor], backbone: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that fit a backbone, and the names of those that it lacks."""
    own = backbone.state_dict()
    given = {re.sub(r'^(module\.)?(backbone\.)?', '', k): v for k, v in given.items()}
    fitting = {
        key: value
        for key, value in given.items()
        if key in own and isinstance(value, Tensor) and value.shape == own[key].shape
    }
    names = (key for key, _ in backbone.named_parameters())
    return fitting, [
        key for key in names if key not in fitting and not MAP_NORMS.match(key)
    ]


@dataclass
class Watch(Hook):
    """Takes times, losses and scores of a training.

    Args:
        seed (int): from which random numbers start, when the model is built: images
            and augmentation are then the same for all.
        tell (Callable): called after each step.
    """

    seed: int
    tell: Callable[[], None]
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    total: float = 0.0

    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        set_random_seed(self.seed)
        self.start = time.perf_counter()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.step_start = time.perf_counter()

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        self.losses.append(float(outputs['loss']))  # waits for a GPU
        now = time.perf_counter()
        self.times.append(now - self.step_start)
        self.total = now - self.start
        self.tell()

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = metrics


def train(
    cfg: Config,
    setting: Setting,
    steps: int,
    name: str,
    seed: int,
    lr: float,
    weights: str | None,
    tell: Callable[[], None],
) -> dict[str, object]:
    """Train one model and evaluate it at the end.

    Args:
        cfg (Config): of :func:`read`.
        setting (Setting): what it was read with.
        steps (int): length.
        name (str): of the backbone.
        seed (int): of all random numbers.
        lr (float): the highest learning rate.
        weights (str | None): as for :func:`build`.
        tell (Callable): called after each step.

    Returns:
        dict: a row; scores in percent, loss as the mean of the last tenth of the
        steps, the median time of a step (without loading), the time of all steps with
        loading.
    """
    model = build(cfg, name, seed, weights)
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.optimizer.lr = lr
    watch = Watch(seed, tell)
    before, mmengine_device.DEVICE = mmengine_device.DEVICE, setting.device
    try:
        # evaluators print
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            runner = Runner(
                model,
                folder,
                train_dataloader=cfg.train_dataloader,
                val_dataloader=cfg.val_dataloader,
                train_cfg=dict(by_epoch=False, max_iters=steps, val_interval=steps),
                val_cfg=dict(),
                optim_wrapper=cfg.optim_wrapper,
                param_scheduler=schedule(steps),
                val_evaluator=cfg.val_evaluator,
                default_hooks=dict(logger=None, checkpoint=None),
                custom_hooks=[watch],
                log_level='ERROR',
                randomness=dict(seed=seed),
                default_scope=cfg.default_scope,
                experiment_name=f'finetune_{uuid.uuid4().hex}',
            )
            runner.train()
    finally:
        mmengine_device.DEVICE = before
    task, second = tasks.of(cfg), RECIPES[setting.task].second
    metric = task.score(cfg)
    return dict(
        model=name,
        seed=seed,
        lr=lr,
        weights=weights or 'none',
        task=setting.task,
        metric=metric,
        score=percent(watch.metrics, metric),
        second_metric=second,
        second=percent(watch.metrics, second),
        loss=round(statistics.mean(watch.losses[-max(steps // 10, 1) :]), 4),
        params=sum(p.numel() for p in model.parameters()),
        seconds_per_step=round(statistics.median(watch.times), 4),
        seconds=round(watch.total, 2),
        steps=steps,
        batch=cfg.train_dataloader.batch_size,
        size=setting.size,
        device=device_name(setting.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def percent(metrics: dict, name: str) -> float | str:
    """A score in percent; '' where the data has too few classes for it."""
    if name.startswith('coco/'):  # from 0 to 1; nothing where nothing was found
        return round(100 * metrics.get(name, 0.0), 2)
    return round(float(metrics[name]), 2) if name in metrics else ''
