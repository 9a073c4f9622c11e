"""Build a model by its name, with or without its released weights."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import nn

from .checkpoint import load_weights
from .models import RAVLT, Backbone, Classifier, L2ViT, RAVLTNeck
from .models.backbones.base import is_int
from .models.classifier import GlobalAveragePooling


@dataclass(frozen=True)
class _Family:
    """What the models of one backbone have in common.

    Attributes:
        backbone: Its class.
        released: Where the weights of the released classifiers are, by ``arch``.
        neck: What a classifier has between the channels of the last map and its linear
            layer: the module, and the length of the vector that it returns.
        in_classifiers: Options of the backbone in a classifier.
    """

    backbone: type[Backbone]
    released: dict[str, str]
    neck: Callable[[int], tuple[nn.Module, int]]
    in_classifiers: dict[str, Any] = field(default_factory=dict)


_RALA = 'https://huggingface.co/aldjalkdf/RAVLT/resolve/main/RAVLT_{}.pth'
_L2VIT = (
    'https://github.com/ChuanyangZheng/L2ViT/releases/download/v1.0/'
    'L2ViT-{}-checkpoint-best-ema.pth'
)
_FAMILIES = {
    'ravlt': _Family(
        RAVLT,
        {arch: _RALA.format(arch.upper()) for arch in 'tsbl'},
        lambda channels: (RAVLTNeck(channels, 1024), 1024),
        dict(output_norm=False),
    ),
    'l2vit': _Family(
        L2ViT,
        dict(
            t=_L2VIT.format('Tiny'), s=_L2VIT.format('Small'), b=_L2VIT.format('Base')
        ),
        lambda channels: (GlobalAveragePooling(), channels),
    ),
}


def list_models() -> list[str]:
    """Names that :func:`create_model` takes, from small to large."""
    return [
        f'{name}_{arch}'
        for name, family in _FAMILIES.items()
        for arch in family.backbone.arch_zoo
    ]


def create_model(
    name: str,
    checkpoint: str | os.PathLike | bool | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> Backbone | Classifier:
    """Build a backbone, or with ``num_classes`` a classifier.

    ::

        backbone = mmravlt.create_model('ravlt_t', checkpoint=True, out_indices=(2, 3))
        classifier = mmravlt.create_model('ravlt_t', checkpoint=True, num_classes=1000)

    A report of what became of a file's weights is logged, see
    :func:`mmravlt.checkpoint.load_weights`; ``logging.basicConfig(level='INFO')``
    shows it in any case. A classifier of another number of classes than the file's
    begins with a new last layer, and the report says so.

    Args:
        name (str): one of :func:`list_models`.
        checkpoint (str | os.PathLike | bool | None): weights to load: path or http(s)
            address of a file of any layout, such as a released classifier, detector or
            segmentor, of which a backbone takes its part. True takes the released
            classifier's. None, the default, leaves the initial weights.
        num_classes (int | None): of a classifier; None builds a backbone.
        options: of the backbone, see :class:`mmravlt.models.RAVLT` and
            :class:`mmravlt.models.L2ViT`: ``out_indices``, ``drop_path_rate`` and so
            on. A classifier takes all but ``out_indices`` and ``output_norm``.

    Returns:
        Backbone | Classifier: in training mode, as PyTorch's modules are when built. A
        backbone maps images (B, 3, H, W) to a tuple of maps, a classifier to logits
        (B, num_classes).

    Raises:
        ValueError: if there is no such model, or an option has a value that no model
            can be built of.
        TypeError: if there is no such option.
        CheckpointError: if the weights cannot be downloaded or read, or belong to
            another model.
    """
    if name not in list_models():
        raise ValueError(f'name is {name!r}; {_advise(name, list_models())}')
    family_name, arch = name.split('_')
    family = _FAMILIES[family_name]
    parameters = inspect.signature(family.backbone).parameters
    known = [key for key in parameters if key not in ('arch', 'init_cfg')]
    what = 'a backbone'
    if num_classes is not None:
        what = 'a classifier'
        known = [key for key in known if key not in ('out_indices', 'output_norm')]
    for key in options:
        if key not in known:
            raise TypeError(
                f'{key!r} is no option of {name} as {what}; {_advise(key, known)}'
            )
    if num_classes is None:
        model = family.backbone(arch, **options)
    elif not is_int(num_classes) or num_classes < 1:
        raise ValueError(f'num_classes is {num_classes!r}; give a whole number from 1.')
    else:
        backbone = family.backbone(
            arch, out_indices=(3,), **family.in_classifiers, **options
        )
        neck, channels = family.neck(backbone.settings['embed_dims'][-1])
        model = Classifier(backbone, neck, num_classes, channels)
    if checkpoint is True:
        checkpoint = family.released[arch]
    if checkpoint is not None and checkpoint is not False:
        load_weights(model, checkpoint)
    return model


def _advise(word: Any, known: list[str]) -> str:
    """What to give instead of an unknown word."""
    near = get_close_matches(str(word), known, 1)
    meant = f'did you mean {near[0]!r}? Give' if near else 'give'
    return f'{meant} one of {", ".join(map(repr, known))}.'
