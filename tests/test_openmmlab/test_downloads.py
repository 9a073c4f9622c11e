"""Checkpoints at addresses are downloaded whole, and once."""

import hashlib
import http.server
import io
import re
import threading

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmravlt.checkpoint import download


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
        load_checkpoint(torch.nn.Linear(2, 3), url)
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
        download(server.address + '/x.safetensors', progress=False)
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
