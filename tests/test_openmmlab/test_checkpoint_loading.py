import hashlib
import http.server
import io
import re
import threading

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

from ..processes import run_python


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
    run_python('-c', code)


# --- addresses ---


class Served(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802  (the base class's name)
        self.server.requests.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Served) as server:
        server.files, server.requests, server.cut = {}, [], None
        server.address = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home/hub/checkpoints'


@pytest.fixture
def body(tmp_path):
    path = tmp_path / 'source.pth'
    torch.save({'model': {'w': torch.ones(1000)}}, path)
    return path.read_bytes()


def name_with_hash(body):
    return f'/weights-{hashlib.sha256(body).hexdigest()[:8]}.pth'


@pytest.mark.parametrize('has_hash', [True, False])
def test_a_file_is_downloaded_once_and_kept(server, cache, body, has_hash):
    name = name_with_hash(body) if has_hash else '/weights.pth'
    server.files[name] = body
    for query in ('', '', '?download=1'):
        loaded = CheckpointLoader.load_checkpoint(server.address + name + query)
        torch.testing.assert_close(loaded['state_dict']['w'], torch.ones(1000))
    assert server.requests == [name]
    assert [p.name for p in cache.iterdir()] == [name[1:]]


def refused(server, cache, name, reason):
    url = server.address + name
    with pytest.raises(RuntimeError, match=reason) as caught:
        load_checkpoint(Layer(), url)
    message = str(caught.value)
    assert url in message and str(cache / name[1:]) in message
    assert '--cfg-options model.backbone.init_cfg=None' in message
    assert '\n' not in message
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize('has_hash', [True, False])
@pytest.mark.parametrize('cut', [0, 10, -1])
def test_half_a_download_leaves_no_file(server, cache, body, has_hash, cut):
    name = name_with_hash(body) if has_hash else '/weights.pth'
    server.files[name], server.cut = body, cut
    refused(server, cache, name, 'hash' if has_hash else r'\d+ bytes arrived')
    server.cut = None
    assert 'state_dict' in CheckpointLoader.load_checkpoint(server.address + name)


def test_half_of_a_file_of_before_torch_1_6_is_not_kept_either(server, cache):
    whole = io.BytesIO()
    torch.save({'w': torch.ones(1000)}, whole, _use_new_zipfile_serialization=False)
    server.files['/old.pth'], server.cut = whole.getvalue(), -1000
    refused(server, cache, '/old.pth', r'\d+ bytes arrived')
    server.cut = None
    loaded = CheckpointLoader.load_checkpoint(server.address + '/old.pth')
    torch.testing.assert_close(loaded['w'], torch.ones(1000))


@pytest.mark.parametrize('cut', [None, 9, -1])
def test_safetensors_are_downloaded_whole_or_not_at_all(server, cache, cut):
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    body = len(header).to_bytes(8, 'little') + header + bytes(4)
    server.files['/x.safetensors'], server.cut = body, cut
    if cut is None:
        checkpoint_loading._download(
            server.address + '/x.safetensors', str(cache / 'x.safetensors'), False
        )
        assert (cache / 'x.safetensors').read_bytes() == body
    else:
        refused(server, cache, '/x.safetensors', r'\d+ bytes arrived')


def test_another_file_than_its_name_says_is_refused(server, cache, body):
    server.files['/weights-0123abcd.pth'] = body
    refused(server, cache, '/weights-0123abcd.pth', 'hash')


def test_a_date_in_the_name_is_no_hash(server, cache, body):
    server.files['/weights-20240131.pth'] = body
    CheckpointLoader.load_checkpoint(server.address + '/weights-20240131.pth')
    assert (cache / 'weights-20240131.pth').exists()


def test_an_address_without_a_file_says_what_to_do(server, cache):
    refused(server, cache, '/absent.pth', '404')


def test_an_unreachable_address_says_what_to_do(server, cache):
    server.address = 'http://127.0.0.1:1'
    refused(server, cache, '/weights.pth', 'refused')


def test_a_file_put_there_by_hand_is_used(server, cache, body):
    cache.mkdir(parents=True)
    (cache / 'weights.pth').write_bytes(body)
    CheckpointLoader.load_checkpoint(server.address + '/weights.pth')
    assert server.requests == []


@pytest.mark.parametrize('scheme', ['torchvision://', 'mmcls://', 'openmmlab://'])
def test_schemes_that_lead_to_an_address_use_our_download(
    server, cache, body, monkeypatch, scheme
):
    server.files['/weights.pth'] = body
    addresses = {'net': server.address + '/weights.pth'}
    for name in ('torchvision', 'external', 'mmcls'):
        monkeypatch.setattr(
            mmengine_checkpoint, f'get_{name}_models', lambda: addresses
        )
    CheckpointLoader.load_checkpoint(scheme + 'net')
    assert (cache / 'weights.pth').exists()


@pytest.mark.parametrize('is_first', [True, False])
def test_only_the_first_process_of_a_machine_downloads(
    server, cache, body, monkeypatch, is_first
):
    server.files['/weights.pth'] = body
    url, waited = server.address + '/weights.pth', []

    def barrier():
        waited.append(True)
        if not is_first:  # meanwhile the first process has finished
            cache.mkdir(parents=True)
            (cache / 'weights.pth').write_bytes(body)

    monkeypatch.setattr('mmengine.dist.is_distributed', lambda: True)
    monkeypatch.setattr('mmengine.dist.barrier', barrier)
    monkeypatch.setenv('LOCAL_RANK', '0' if is_first else '1')
    CheckpointLoader.load_checkpoint(url)
    assert len(server.requests) == is_first
    assert waited == [True]


@pytest.mark.parametrize('local_rank', ['0', '1'])
def test_a_failed_download_stops_every_process(server, cache, monkeypatch, local_rank):
    waited = []
    monkeypatch.setattr('mmengine.dist.is_distributed', lambda: True)
    monkeypatch.setattr('mmengine.dist.barrier', lambda: waited.append(True))
    monkeypatch.setenv('LOCAL_RANK', local_rank)
    refused(server, cache, '/absent.pth', re.escape(str(cache / 'absent.pth')))
    assert waited == [True]
