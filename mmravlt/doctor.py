"""Examine an installation: what is there, what conflicts, what will work.

Each check imports or runs the thing it reports on, since packages that are
found are not always packages that load. The lines start with ``ok``, ``--``
(absent, and something else works without it) or ``!!`` (a user needs it and it
will not work); a ``!!`` makes the exit code 1.
"""

import importlib
import importlib.util
import platform
import warnings
from collections.abc import Callable
from importlib import metadata

from . import __version__, compat, openmmlab
from .foundation import has_mmengine

FOUNDATION = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
}
FRESH = (
    'in a fresh environment and a checkout of mmravlt: pip install -c '
    "constraints.txt -e '.[lite]'"
)


class Report:
    """Prints one line per finding and remembers whether all is well."""

    def __init__(self) -> None:
        self.healthy = True

    def ok(self, text: str) -> None:
        print(f'ok  {text}')

    def absent(self, text: str) -> None:
        print(f'--  {text}')

    def bad(self, text: str, fix: str) -> None:
        self.healthy = False
        print(f'!!  {text}\n      fix: {fix}')

    def attempt(self, name: str, action: Callable[[], str], fix: str) -> bool:
        """Run a check; its result or its error becomes a line."""
        try:
            self.ok(f'{name}: {action()}')
            return True
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            self.bad(f'{name}: {reason}', fix)
            return False


def examine() -> int:
    """Print the findings.

    Returns:
        int: 0 if what a user needs works, else 1.
    """
    report = Report()
    report.ok(f'mmravlt {__version__}, Python {platform.python_version()}')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if _examine_torch(report):
            if _is_torch_alone():
                report.absent(
                    'mmengine is not installed: no configs and no tools, only models '
                    'and their weights'
                )
                report.attempt('models', _build_alone, FRESH)
            elif _examine_foundation(report):
                _examine_libraries(report)
    print(
        '\nAll of the above will work.'
        if report.healthy
        else '\nWhat is marked !! will not work until it is fixed.'
    )
    return 0 if report.healthy else 1


def _examine_torch(report: Report) -> bool:
    fix = (
        'install a torch and a torchvision that belong together, for example '
        'pip install torch==2.11.0 torchvision==0.26.0'
    )
    if not report.attempt('torch', _torch_and_gpu, fix):
        return False
    works = report.attempt('torchvision', _torchvision_ops, fix)
    report.attempt('RALA', _rala_kernel, 'unset MMRAVLT_RALA')
    return works


def _rala_kernel() -> str:
    """Run RALA and say which implementation serves which type of tensors, and why."""
    import torch

    from .ops import rala, rala_kernel, rope2d_table

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    fused, reasons = [], {}
    for head_dim in (64, 96):  # of RAVLT
        errors = []
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            name = str(dtype).removeprefix('torch.')
            q = torch.ones(1, 1, 6, head_dim, device=device, dtype=dtype)
            y = rala(q, q, q, rope2d_table(2, 3, head_dim, device))
            assert y.isfinite().all(), f'its result in {name} is not finite'
            kernel, reason = rala_kernel(q, q, q)
            if kernel == 'torch':
                reasons[reason] = None
                continue
            from .ops.kernel_check import kernel_errors

            largest = max(map(max, kernel_errors(device, dtype, head_dim)))
            errors.append(f'{name} {largest:.0e}')
        if errors:
            fused.append(f'of {head_dim} channels {", ".join(errors)}')
    findings = []
    if fused:
        findings.append(
            'the fused Triton kernels, compared with the equations (largest errors '
            f'in heads {"; ".join(fused)})'
        )
    if reasons:
        findings.append(f'PyTorch ({"; ".join(reasons)})')
    return ', else '.join(findings)


def _torch_and_gpu() -> str:
    compat.check_version('torch')
    import torch

    if torch.cuda.is_available():
        gpu = f'GPU {torch.cuda.get_device_name()} (CUDA {torch.version.cuda})'
    else:
        gpu = 'no GPU: configs run on the CPU, with BN for SyncBN and without fp16'
    return f'{torch.__version__}, {gpu}'


def _torchvision_ops() -> str:
    import torch
    import torchvision

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    kept = torchvision.ops.nms(boxes, scores, 0.5).tolist()
    assert kept == [0], f'nms kept {kept} instead of [0]'
    return f'{torchvision.__version__}, its operators run on {device}'


def _is_torch_alone() -> bool:
    """Whether nothing of OpenMMLab is there; some of it needs MMEngine, too."""
    parts = (name for rivals in _distributions().values() for name in rivals)
    return not has_mmengine() and not any(map(_distribution_version, parts))


def _build_alone() -> str:
    from .models import RAVLT

    _run(RAVLT('t'))
    return 'RAVLT runs with PyTorch alone'


def _examine_foundation(report: Report) -> bool:
    """MMEngine and mmcv, which everything needs, and the bridges to torch."""
    for rivals in _distributions().values():
        found = [f'{d} {v}' for d in rivals if (v := _distribution_version(d))]
        if len(found) > 1:
            names = ' '.join(entry.split()[0] for entry in found)
            report.bad(
                f'{" and ".join(found)} are both installed and overwrite each '
                "other's files",
                f'pip uninstall -y {names}; then install one of them again',
            )
    for name in ('mmengine', 'mmcv'):
        if not report.attempt(name, lambda name=name: _import(name), FRESH):
            return False

    from .compat import mmcv_ext

    status = mmcv_ext.status()
    if status.real:
        report.ok('mmcv ops: the compiled ones of this mmcv')
    elif status.broken:
        report.bad(
            f'mmcv ops: {status.reason}; stand-ins are used for '
            f'{", ".join(status.stand_ins)}',
            mmcv_ext.FIX,
        )
    else:
        report.ok(
            f'mmcv ops: {status.reason}; stand-ins for {", ".join(status.stand_ins)}, '
            'any other op raises an error when it is called'
        )
    return report.attempt('checkpoints', _checkpoint_round_trip, FRESH)


def _checkpoint_round_trip() -> str:
    import os
    import tempfile

    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.runner.checkpoint import CheckpointLoader

    compat.install()
    openmmlab.install()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'checkpoint.pth')
        torch.save({'state_dict': {}, 'history': HistoryBuffer([1.0], [1])}, path)
        loaded = CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')
    assert loaded['history'].mean() == 1.0, 'the history came back changed'
    return 'files of MMEngine load without running code from them'


def _examine_libraries(report: Report) -> None:
    from . import config_path, tasks

    works = []
    for name in tasks.LIBRARIES:
        uses = ', '.join(task.name for task in tasks.TASKS if task.package == name)
        if not any(map(_distribution_version, _distributions()[name])) and not _found(
            name
        ):
            report.absent(f'{name} is not installed: no {uses}')
        elif report.attempt(f'{name} ({uses})', lambda n=name: _build_in(n), FRESH):
            works.append(name)
    if not works:
        report.bad(f'none of {", ".join(tasks.LIBRARIES)} works', FRESH)
    if 'mmpretrain' in works:
        _examine_multimodal(report)
    if 'mmdet' in works:
        report.attempt(
            'configs',
            lambda: _read_config(config_path('mmdet/mask_rcnn_ravlt_t_1x.py')),
            "pip install 'setuptools<82' (mmengine reads pkg_resources)",
        )


def _examine_multimodal(report: Report) -> None:
    """Models of mmpretrain that RAVLT does not need but that need transformers."""
    from .compat import multimodal

    name = 'multimodal models of mmpretrain (BLIP, OFA, ...)'
    reason = multimodal.status()
    if reason:
        report.absent(f'{name} are left out: {reason}; all else works with it')
    elif version := _distribution_version('transformers'):
        report.ok(f'{name}: transformers {version} has all that they import')
    else:
        report.absent(f'transformers is not installed: no {name}')


def _build_in(library: str) -> str:
    """Import a library and build RAVLT from its registry."""
    version = _import(library)
    importlib.import_module('mmravlt.models')  # registers RAVLT
    models = importlib.import_module(f'{library}.registry').MODELS
    importlib.import_module(f'{library}.models')
    _run(models.build(dict(type='RAVLT', arch='t')))
    return f"{version}, finds type='RAVLT' and runs it"


def _run(backbone) -> None:
    import torch

    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 64, 64))
    shapes = [tuple(each.shape[2:]) for each in maps]
    assert shapes == [(16, 16), (8, 8), (4, 4), (2, 2)], f'maps of shape {shapes}'


def _read_config(path: str) -> str:
    from mmengine.config import Config

    Config.fromfile(path)
    return f'{path} and the base files of mmdet that it inherits'


def _import(name: str) -> str:
    """Import a package and say its version and the distribution it came from."""
    if name in compat.MINIMUM_VERSIONS:
        compat.check_version(name)
    module = importlib.import_module(name)
    for distribution in _distributions()[name]:
        if _distribution_version(distribution) == module.__version__:
            return f'{module.__version__} (distribution {distribution})'
    return module.__version__


def _distributions() -> dict[str, tuple[str, ...]]:
    """Distributions that install into the same folder, by import name.

    Two of one row overwrite each other's files without a word.
    """
    from . import tasks  # which imports torch, whose absence is said first

    libraries = {task.package: task.distributions for task in tasks.TASKS}
    return FOUNDATION | libraries


def _found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _distribution_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
