"""Go on with a training that has stopped."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from torch import nn

from .checkpoint import CheckpointError, load_file
from .checkpoint.loading import looks_complete
from .tasks.config import innermost_dataset

# What a training saves, by the names that MMEngine gives it.
STATE = ('state_dict', 'optimizer', 'param_schedulers', 'message_hub')


def newest_checkpoint(work_dir: Path) -> tuple[Path | None, str]:
    """Find the checkpoint that a training in a folder goes on from.

    Where a folder was moved or copied, its own files count, not those in the place that
    its ``last_checkpoint`` names.

    Args:
        work_dir (Path): of the training.

    Returns:
        tuple: the file, None if there is no whole one; and a sentence that says which
        it is and why.
    """
    note = work_dir / 'last_checkpoint'
    try:
        named = note.read_text(encoding='utf-8').strip()
    except (OSError, UnicodeError):
        named = ''
    last = work_dir / Path(named).name if named else None
    if last is not None and _is_whole(last):
        return last, f'the training goes on from {last}'
    saved = [p for p in work_dir.glob('*.pth') if not p.name.startswith('best_')]
    saved.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    newest = next(filter(_is_whole, saved), None)
    if newest is None:
        return None, f'{work_dir} has no whole checkpoint, so the training starts anew'
    if last is None:
        reason = f'{note} names none'
    elif last.exists():
        reason = f'{last}, which {note.name} names, is damaged'
    else:
        reason = f'{note} names {named}, which is not in {work_dir}'
    return newest, f'the training goes on from {newest}, the newest whole one: {reason}'


def _is_whole(path: Path) -> bool:
    """Whether a file may be a whole checkpoint, judged by its end."""
    try:
        with path.open('rb') as file:
            return looks_complete(file)
    except OSError:
        return False


def check_resumable(path: str, cfg: Config, model: nn.Module | dict) -> None:
    """Make sure that a file holds the state of a training, of the same model.

    Args:
        path (str): a file; addresses are not looked at.
        cfg (Config): of the training that is to go on.
        model (nn.Module | dict): its model, or the config of it.

    Raises:
        CheckpointError: if it does not.
    """
    if '://' in path:
        return
    checkpoint = load_file(path)
    instead = (
        f'to start from its weights, use --cfg-options load_from={path} instead of '
        '--resume'
    )
    meta = checkpoint.get('meta') or {}
    # MMEngine writes no schedules where a config has none
    needed = [k for k in STATE if k != 'param_schedulers' or cfg.get('param_scheduler')]
    missing = [key for key in needed if key not in checkpoint]
    if 'iter' not in meta or missing:
        lacking = f' (it has no {missing[0]})' if 'iter' in meta else ''
        raise CheckpointError(
            f'{path} holds no state of a training to go on from{lacking}; {instead}'
        )
    theirs = (meta.get('dataset_meta') or {}).get('classes')
    dataset = innermost_dataset(cfg.train_dataloader.dataset)
    ours = (dataset.get('metainfo') or {}).get('classes')
    if theirs and ours and list(theirs) != list(ours):
        raise CheckpointError(
            f'{path} was trained on the {len(theirs)} classes {_shortened(theirs)}, '
            f'but the data has {len(ours)}: {_shortened(ours)}; {instead}'
        )
    if is_model_wrapper(model):
        model = model.module
    if not isinstance(model, nn.Module):  # a FlexibleRunner builds it later
        return
    weights = checkpoint['state_dict']
    for name, value in model.state_dict().items():
        shape = getattr(weights.get(name), 'shape', None)
        if shape is None or shape != value.shape:
            held = 'is missing' if shape is None else f'has the shape {tuple(shape)}'
            raise CheckpointError(
                f'{path} is of another model: {name} {held} there, but has the shape '
                f'{tuple(value.shape)} here; {instead}'
            )


def _shortened(names) -> str:
    return ', '.join(map(str, names[:10])) + (', …' if len(names) > 10 else '')
