"""Write clean files of weights: for one use, or to be published."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..version import __version__
from .contents import Contents, choose_weights, read_contents
from .errors import CheckpointError, WrongWeightsError
from .families import BACKBONE, FAMILIES, Family
from .loading import load_file

#: What a file can be for.
USES = ('backbone', 'classifier', 'detector', 'segmentor')


def convert_file(
    source: str, target: str, use: str | None = None, averaged: bool | None = None
) -> str:
    """Write the weights of a checkpoint of any layout for exactly one use.

    The new file holds ``state_dict`` and ``meta``: for 'backbone' the names of a
    bare RAVLT or L2ViT, else those of a whole mmpretrain, mmdet or mmseg model. In
    ``meta`` stand the names of classes, if they are known. What every model derives,
    such as RAVLT's RoPE frequencies, is left out once it has been checked.

    Args:
        source: The checkpoint; it is read without running code of it.
        target: The new file; a name that ends in ``.safetensors`` gets that format.
        use: One of ``USES``; None for what the checkpoint is.
        averaged: As for :func:`~mmravlt.checkpoint.read_contents`.

    Returns:
        What was done, in a few lines.

    Raises:
        CheckpointError: The checkpoint cannot be used for this, or the file
            cannot be written; nothing is written.
    """
    _check_target(source, target)
    try:
        contents = read_contents(load_file(source), averaged)
    except WrongWeightsError as error:
        raise WrongWeightsError(f'{source} cannot be used: {error}') from None
    if contents.size is None:
        raise WrongWeightsError(f'{source} holds no {" or ".join(FAMILIES)} weights')
    use = _check_use(source, contents, use)
    family = FAMILIES[contents.size.family]

    weights, left_out = {}, {}
    for name, value in contents.weights.items():
        if not isinstance(value, torch.Tensor):
            left_out[contents.sources[name]] = True
        elif family.part_that_derives(name):
            _check_derived(family, source, name, value)
        elif use == 'backbone' and not name.startswith(BACKBONE):
            left_out[contents.sources[name].split('.')[0]] = True
        else:
            own = name.removeprefix(BACKBONE) if use == 'backbone' else name
            weights[own] = value.detach().clone()
    meta: dict[str, Any] = {'mmravlt_version': __version__}
    classes = _classes(contents.meta)
    # Without this key, the libraries take the classes of COCO or ADE20K; mmseg can
    # not draw with a list of classes alone.
    if 'palette' in classes or (classes and use != 'segmentor'):
        meta['dataset_meta'] = classes
    _write({'meta': meta, 'state_dict': weights}, target)
    ending = f'; left out: {", ".join(left_out)}' if left_out else ''
    return (
        f'read {source} ({contents})\n'
        f'wrote {target} ({contents.size} {use}, {len(weights)} tensors{ending})'
    )


def publish_file(source: str, target: str) -> str:
    """Write the weights of a training, of any model, without its state.

    What is kept are ``meta`` and ``state_dict``: no optimiser, no schedules, no
    message hub, no second set of weights. The name gets the first 8 digits of
    the file's SHA-256, by which a download can be checked, as OpenMMLab's
    published files have it.

    Args:
        source: The checkpoint; it is read without running code of it.
        target: The new file, without the digits.

    Returns:
        The name of the new file: for ``name.pth``, ``name-0123abcd.pth``.

    Raises:
        CheckpointError: The checkpoint holds no weights, or the file cannot be
            written; nothing is written.
    """
    if not target.endswith('.pth'):
        raise CheckpointError(f'{target}: the name of a published file ends in .pth')
    _check_folder(target)
    checkpoint = load_file(source)
    try:
        weights, _ = choose_weights(checkpoint)
    except WrongWeightsError as error:
        raise WrongWeightsError(f'{source} cannot be used: {error}') from None
    kept = {
        'meta': checkpoint.get('meta') or {},
        'state_dict': {
            n: v.detach().clone() if isinstance(v, torch.Tensor) else v
            for n, v in weights.items()
        },
    }
    stem = target.removesuffix('.pth')
    return _write(kept, target, lambda digits: f'{stem}-{digits[:8]}.pth')


def _check_folder(target: str) -> None:
    folder = os.path.dirname(target) or '.'
    if not os.path.isdir(folder):
        raise CheckpointError(f'there is no folder {folder} to write {target} into')


def _check_target(source: str, target: str) -> None:
    _check_folder(target)
    if not target.endswith(('.pth', '.safetensors')):
        raise CheckpointError(f'{target}: the name must end in .pth or .safetensors')
    if os.path.exists(target):
        is_source = os.path.exists(source) and os.path.samefile(source, target)
        which = 'is the file to read' if is_source else 'exists already'
        raise CheckpointError(f'{target} {which}: give another name to write to')


def _check_use(source: str, contents: Contents, use: str | None) -> str:
    kind = contents.kind
    if use is None:
        if kind not in USES:
            raise WrongWeightsError(
                f'{source} holds parts that were not recognised: say what it is for, '
                f'one of {", ".join(USES)}'
            )
        return kind
    if kind in USES and use not in ('backbone', kind):
        raise WrongWeightsError(f'{source} holds a {kind}, which gives no {use}')
    return use


def _check_derived(family: Family, source: str, name: str, value: torch.Tensor) -> None:
    for derived in family.derived:
        unlike = derived.part(name) and derived.unlike(value)
        if unlike:
            raise WrongWeightsError(
                f"'{name}' in {source} holds {unlike}, so its weights belong to "
                f'another model'
            )


def _classes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Names and colours of the classes, as MMEngine (or mmcv 1.x) stores them.

    Plain values, which every format can hold.
    """
    stored = meta.get('dataset_meta') or meta
    lower = {str(key).lower(): value for key, value in stored.items()}
    classes, palette = lower.get('classes'), lower.get('palette')
    if classes is None or not len(classes):
        return {}
    found: dict[str, Any] = {'classes': tuple(map(str, classes))}
    if palette is not None and not isinstance(palette, str):
        found['palette'] = [[int(value) for value in colour] for colour in palette]
    return found


def _write(
    checkpoint: dict[str, Any], target: str, name: Callable[[str], str] | None = None
) -> str:
    """Write a whole file or none.

    Args:
        checkpoint: With ``meta`` and ``state_dict``.
        target: The file.
        name: Gives the file another name by its SHA-256 in hexadecimal.

    Returns:
        The name of the file.
    """
    partial = f'{target}.{os.getpid()}.partial'
    try:
        with open(partial, 'wb') as file:
            if target.endswith('.safetensors'):
                file.write(_to_safetensors(checkpoint, target))
            else:
                torch.save(checkpoint, file)
        if name is not None:
            with open(partial, 'rb') as file:
                target = name(hashlib.sha256(file.read()).hexdigest())
        os.replace(partial, target)
    except OSError as error:
        raise CheckpointError(f'{target} could not be written: {error}') from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return target


def _to_safetensors(checkpoint: dict[str, Any], target: str) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError:
        raise CheckpointError(
            f'{target} was not written because the library safetensors is not '
            f'installed: pip install safetensors, or give a name that ends in .pth'
        ) from None
    weights = {name: v.contiguous() for name, v in checkpoint['state_dict'].items()}
    # MMEngine and Hugging Face's readers expect to hear that it is PyTorch's.
    return save(weights, {'format': 'pt', 'mmravlt': json.dumps(checkpoint['meta'])})
