"""Attentions side by side: the same small DeiT trained with each on the same images."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from mmravlt.analysis.flops import markdown_table
from mmravlt.registry import ATTENTIONS

from .errors import BenchmarkError
from .measure import device_name
from .results import Row, write_csv

KINDS = [
    *('softmax', 'linear', 'hydra', 'efficient', 'linear_angular', 'enhanced'),
    *('focused', 'l2vit', 'rala'),
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Setting:
    """What is the same for all kinds.

    Args:
        epochs (int): passes over the training images.
        batch (int): images of a step.
        lr (float): highest learning rate of AdamW.
        size (int): height and width of the images in pixels.
        patch (int): height and width of a token in pixels.
        dim (int): channels.
        depth (int): blocks.
        heads (int): of each attention.
        device (str): 'cpu' or 'cuda'.
    """

    epochs: int = 9
    batch: int = 64
    lr: float = 3e-3
    size: int = 32
    patch: int = 4
    dim: int = 64
    depth: int = 2
    heads: int = 2
    device: str = 'cpu'


@dataclass(frozen=True)
class Data:
    """Normalised images (N, 3, size, size) and class numbers (N,)."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    num_classes: int


def load(root: Path, setting: Setting) -> Data:
    """Read ``train/<class>/…`` and ``val/<class>/…`` into memory.

    Raises:
        BenchmarkError: if a folder is missing, has no images or other classes, or there
            are fewer training images than a batch needs.
    """
    transform = v2.Compose(
        [
            v2.Resize(setting.size),
            v2.CenterCrop(setting.size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    splits, classes = {}, {}
    for split in ('train', 'val'):
        try:
            folder = ImageFolder(root / split, transform)
        except FileNotFoundError as error:
            raise BenchmarkError(
                f'{root / split} cannot be used ({error}); give a folder with '
                'train/<class>/… and val/<class>/….'
            ) from error
        images, labels = zip(*folder, strict=True)
        classes[split] = folder.classes
        splits[split] = (
            torch.stack(images).to(setting.device),
            torch.tensor(labels, device=setting.device),
        )
    if classes['train'] != classes['val']:
        raise BenchmarkError(
            f'{root} has the classes {classes["train"]} in train and {classes["val"]} '
            'in val; they must be the same.'
        )
    if len(splits['train'][0]) < setting.batch:
        raise BenchmarkError(
            f'{root} has {len(splits["train"][0])} training images, --batch is '
            f'{setting.batch}; give a smaller one.'
        )
    return Data(splits['train'], splits['val'], len(classes['train']))


def check(kinds: list[str], setting: Setting) -> None:
    """Make sure that all models can be built.

    Raises:
        BenchmarkError: if one cannot.
    """
    if not find_spec('mmpretrain'):
        raise BenchmarkError('zoo needs mmpretrain, which is not installed.')
    for kind in kinds:
        if kind not in ATTENTIONS.module_dict:
            raise BenchmarkError(
                f'there is no attention {kind}; known are {", ".join(KINDS)}.'
            )
    if len(set(kinds)) < len(kinds):
        raise BenchmarkError(f'a kind stands twice in {" ".join(kinds)}; give it once.')
    if setting.dim % (4 * setting.heads):
        raise BenchmarkError(
            f'--dim is {setting.dim} for {setting.heads} heads; give a multiple of '
            f'{4 * setting.heads}.'
        )
    if setting.size % setting.patch:
        raise BenchmarkError(
            f'--size is {setting.size} and --patch {setting.patch}; give a size that '
            'the patches divide.'
        )


def build(kind: str, num_classes: int, setting: Setting) -> nn.Module:
    """A DeiT without class token whose attention is of this kind.

    A gate costs C×C parameters per block, which its FFN goes without.
    """
    ratio = 3.5 if ATTENTIONS.get(kind).own_gate else 4
    arch = dict(
        embed_dims=setting.dim,
        num_layers=setting.depth,
        num_heads=setting.heads,
        feedforward_channels=int(ratio * setting.dim),
    )
    vit = dict(
        type='mmpretrain.VisionTransformer',
        arch=arch,
        img_size=setting.size,
        patch_size=setting.patch,
        with_cls_token=False,
        out_type='avg_featmap',
        final_norm=False,
    )
    backbone = MODELS.build(
        dict(type='mmravlt.WithGlobalAttention', backbone=vit, kind=kind)
    )
    backbone.init_weights()
    model = nn.Module()
    model.backbone = backbone
    model.head = nn.Linear(setting.dim, num_classes)
    return model.to(setting.device)


def batches(
    images: Tensor, labels: Tensor, setting: Setting
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches; each is shifted and flipped as a whole."""
    augment = v2.Compose(
        [
            v2.RandomCrop(setting.size, padding=setting.size // 8),
            v2.RandomHorizontalFlip(),
        ]
    )
    order = torch.randperm(len(images)).to(images.device)
    for index in order.split(setting.batch)[: len(images) // setting.batch]:
        yield augment(images[index]), labels[index]


def train(
    kind: str, seed: int, data: Data, setting: Setting, tell: Callable[[], None]
) -> Row:
    """Train one model.

    Args:
        kind (str): of its attention.
        seed (int): of the weights; batches and their augmentation depend on nothing
            else, so they are the same for all kinds.
        data (Data): from :func:`load`.
        setting (Setting): everything else.
        tell (Callable): called after each step.

    Returns:
        Row: top-1 accuracy in percent after the last epoch, parameters, seconds of all
        training steps.
    """
    torch.manual_seed(seed)
    model = build(kind, data.num_classes, setting)
    optimizer = torch.optim.AdamW(model.parameters(), setting.lr, weight_decay=0.05)
    steps = setting.epochs * (len(data.train[0]) // setting.batch)
    # It divides by the lengths of its phases, none of which may be 0.
    total = max(steps, 3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, setting.lr, total_steps=total, pct_start=max(0.1, 2 / total)
    )
    torch.manual_seed(seed)
    seconds = 0.0
    model.backbone.train()
    for _ in range(setting.epochs):
        for images, labels in batches(*data.train, setting):
            start = time.perf_counter()
            logits = model.head(model.backbone(images)[-1])
            loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if setting.device == 'cuda':
                torch.cuda.synchronize()
            seconds += time.perf_counter() - start
            tell()
    return dict(
        kind=kind,
        seed=seed,
        top1=round(accuracy(model, *data.val, setting), 2),
        params=sum(p.numel() for p in model.parameters()),
        seconds=round(seconds, 2),
        steps=steps,
        **asdict(setting),
        device_name=device_name(setting.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


@torch.no_grad()
def accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, setting: Setting
) -> float:
    """Percentage of images that are classified right."""
    model.backbone.eval()
    right = 0
    for part, wanted in zip(
        images.split(setting.batch), labels.split(setting.batch), strict=True
    ):
        found = model.head(model.backbone(part)[-1]).argmax(1)
        right += (found == wanted).sum().item()
    return 100 * right / len(images)


def run(
    root: Path, kinds: list[str], seeds: int, setting: Setting, path: Path
) -> list[Row]:
    """Train every kind with every seed; write after each, so that none is lost."""
    check(kinds, setting)
    data = load(root, setting)
    total = seeds * len(kinds) * setting.epochs
    total *= len(data.train[0]) // setting.batch
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('', total=total)
        for seed in range(seeds):
            for kind in kinds:
                progress.update(task, description=f'{kind}, seed {seed}')
                row = train(kind, seed, data, setting, lambda: progress.advance(task))
                rows.append(row)
                write_csv(path, rows)
    return rows


def table(rows: list[Row]) -> str:
    """A Markdown table with a line for each kind."""
    headings = ['attention', 'parameters (M)', 'top-1 (%)', 'seeds', 'ms per step']
    lines = []
    for kind in dict.fromkeys(row['kind'] for row in rows):
        own = [row for row in rows if row['kind'] == kind]
        top1 = [row['top1'] for row in own]
        spread = f' ± {statistics.stdev(top1):.1f}' if len(own) > 1 else ''
        lines.append(
            [
                kind,
                f'{own[0]["params"] / 1e6:.3f}',
                f'{statistics.mean(top1):.1f}{spread}',
                str(len(own)),
                f'{statistics.mean(r["seconds"] / r["steps"] for r in own) * 1e3:.1f}',
            ]
        )
    return markdown_table(headings, lines)
