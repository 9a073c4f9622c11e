import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmravlt import checkpoint as safe
from mmravlt.openmmlab import checkpoint_loading
from mmravlt.openmmlab.checkpoint_loading import install


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.delenv(safe.TRUST_SWITCH, raising=False)
    install()


class Foreign:
    """A type that no checkpoint needs."""


# --- training, and going on with it ---


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)
        self.head = torch.nn.Linear(2, 1)

    def forward(self, x, y, mode='tensor'):
        error = (self.head(self.norm(x)) - y).square().mean()
        return {'loss': error} if mode == 'loss' else [error]


class Samples(torch.utils.data.Dataset):
    metainfo = {'classes': ('cat', 'dog'), 'palette': [(1, 2, 3)]}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {'x': torch.randn(2, generator=generator), 'y': torch.ones(1)}


class Count(BaseMetric):
    """Its numpy number ends in the checkpoint, as those of real metrics do."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'count': np.float64(len(results))}


class Start(Hook):
    """Records the state that a training begins with."""

    def before_train(self, runner):
        state = runner.optim_wrapper.optimizer.state.values()
        self.momentum = [s['momentum_buffer'].clone() for s in state]
        self.epoch, self.iter = runner.epoch, runner.iter
        losses = runner.message_hub.log_scalars.get('train/loss')
        self.losses = [] if losses is None else losses.data[0].tolist()


def make_runner(work_dir, epochs, name, **kwargs):
    data = {
        'dataset': Samples(),
        'batch_size': 4,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'collate_fn': default_collate,
    }
    saving = {'type': 'CheckpointHook', 'interval': 1}
    best = {'save_best': 'count', 'rule': 'greater'}
    return Runner(
        model=Tiny(),
        work_dir=str(work_dir),
        train_dataloader=data,
        train_cfg={'by_epoch': True, 'max_epochs': epochs, 'val_interval': 1},
        val_dataloader=data,
        val_cfg={},
        val_evaluator=[Count()],
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}},
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 2},
            {'type': 'MultiStepLR', 'milestones': [2], 'by_epoch': True},
            {'type': 'ReduceOnPlateauLR', 'monitor': 'count', 'rule': 'greater'},
        ],
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1},
            'checkpoint': {**saving, **best},
        },
        custom_hooks=[{'type': 'EMAHook'}],
        experiment_name=name,
        log_level='ERROR',
        **kwargs,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Two epochs of two iterations each: the runner, and its last checkpoint."""
    install()
    work_dir = tmp_path_factory.mktemp('trained')
    runner = make_runner(work_dir, 2, 'first')
    runner.train()
    return runner, work_dir / 'epoch_2.pth'


@pytest.mark.parametrize('how', ['by path', 'automatically'])
def test_training_goes_on_from_its_checkpoint(trained, how, tmp_path):
    first, path = trained
    if how == 'by path':
        runner = make_runner(tmp_path, 3, how, load_from=str(path), resume=True)
    else:
        (tmp_path / 'epoch_2.pth').write_bytes(path.read_bytes())
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
        runner = make_runner(tmp_path, 3, how, resume=True)
    start = Start()
    runner.register_hook(start)
    runner.train()

    assert (start.epoch, start.iter) == (2, 4)
    state = first.optim_wrapper.optimizer.state.values()
    momentum = [s['momentum_buffer'] for s in state]
    assert len(momentum) == len(start.momentum) == 4
    torch.testing.assert_close(start.momentum, momentum)
    losses = first.message_hub.get_scalar('train/loss').data[0].tolist()
    assert len(losses) == 4 and start.losses == losses
    assert (runner.epoch, runner.iter) == (3, 6)
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 6
    assert (tmp_path / 'epoch_3.pth').exists()
    # what was read and written again is read once more
    again = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_3.pth'))
    assert again['meta']['epoch'] == 3


def test_every_checkpoint_of_a_training_is_read(trained):
    paths = sorted(trained[1].parent.glob('*.pth'))
    assert [p.name for p in paths] == [
        'best_count_epoch_1.pth',
        'epoch_1.pth',
        'epoch_2.pth',
    ]
    for path in paths:
        checkpoint = CheckpointLoader.load_checkpoint(str(path))
        assert 'ema_state_dict' in checkpoint
        assert checkpoint['meta']['dataset_meta'] == Samples.metainfo


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'),
    reason='torch < 2.4 has no list of types',
)
def test_mmengine_reads_with_weights_only(trained, monkeypatch):
    asked = []
    load = torch.load

    def spy(*args, **kwargs):
        asked.append(kwargs.get('weights_only'))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', spy)
    load_checkpoint(Tiny(), str(trained[1]))
    assert asked == [True]


# --- weights to begin with ---


class Layer(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = torch.nn.Linear(2, 3)


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_pretrained_weights_come_from_a_release(tmp_path, prefix):
    path = str(tmp_path / 'release.pth')
    source = Layer().state_dict()
    named = {(prefix or '') + name: value for name, value in source.items()}
    torch.save({'model': named, 'epoch': 1, 'optimizer': {}}, path)
    layer = Layer({'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix})
    layer.init_weights()
    torch.testing.assert_close(dict(layer.state_dict()), dict(source))


@pytest.mark.parametrize('layout', ['mmengine', 'plain', 'release'])
def test_load_checkpoint_reads_each_layout(tmp_path, layout):
    path = str(tmp_path / 'weights.pth')
    weights = Layer().state_dict()
    key = {'mmengine': 'state_dict', 'release': 'model'}.get(layout)
    torch.save({key: weights} if key else weights, path)
    layer = Layer()
    load_checkpoint(layer, path, strict=True)
    torch.testing.assert_close(dict(layer.state_dict()), dict(weights))


def test_a_foreign_type_is_refused_whoever_asks(tmp_path):
    path = str(tmp_path / 'foreign.pth')
    torch.save({'state_dict': {}, 'x': Foreign()}, path)
    for ask in (
        lambda: load_checkpoint(Layer(), path),
        lambda: Layer({'type': 'Pretrained', 'checkpoint': path}).init_weights(),
        lambda: make_runner(tmp_path, 3, 'foreign', load_from=path).train(),
    ):
        with pytest.raises(safe.UnsafeCheckpointError, match='Foreign'):
            ask()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load_checkpoint(Layer(), str(tmp_path / 'absent.pth'))


# --- installing ---


def test_installing_again_changes_nothing():
    before = dict(CheckpointLoader._schemes)
    install()
    assert dict(CheckpointLoader._schemes) == before
    for path in ('a.pth', 'http://a/b.pth', 'https://a/b.pth'):
        loader = CheckpointLoader._get_checkpoint_loader(path)
        assert loader.__module__ == checkpoint_loading.__name__
        assert loader.__name__.startswith('load_from_')


@pytest.mark.skipif(
    not hasattr(mmengine_checkpoint, '_safe_torch_load'),
    reason='this MMEngine has no loading function of its own',
)
def test_other_schemes_of_the_fork_do_not_fall_back(tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save({'x': Foreign()}, path)
    with pytest.raises(safe.UnsafeCheckpointError):
        mmengine_checkpoint._safe_torch_load(str(path), map_location='cpu')


@pytest.mark.parametrize('first', ['mmengine.runner', 'mmravlt'])
def test_order_of_imports_does_not_matter(tmp_path, first):
    path = tmp_path / 'release.pth'
    torch.save({'model': {'w': torch.ones(1)}}, path)
    code = f"""
import {first}
from mmravlt.openmmlab.checkpoint_loading import install
install()
from mmengine.runner import CheckpointLoader
assert 'state_dict' in CheckpointLoader.load_checkpoint({str(path)!r})
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
