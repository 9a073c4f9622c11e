"""tools/inference.py goes on where an image cannot be done, and names it at the end."""

import json
import runpy
import sys
from collections import OrderedDict

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from mmravlt.command_line import find_images
from mmravlt.data.depth import to_8_bits

from .processes import TOOLS
from .tiny import CONFIGS
from .untrained import write_untrained


@pytest.fixture(scope='module', params=CONFIGS)
def project(request, tmp_path_factory):
    """A config for 12-bit images, and random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    write_untrained(folder, request.param, bit_depth=12)
    return folder


@pytest.fixture
def infer(project, monkeypatch, tmp_path):
    """Runs the tool in this process; returns its error, or None."""
    scopes = OrderedDict(DefaultScope._instance_dict)
    monkeypatch.setattr(DefaultScope, '_instance_dict', scopes)

    def call(*images):
        words = [project / 'config.py', project / 'weights.pth', *images]
        words += ['--out-dir', tmp_path / 'out']
        monkeypatch.setattr(sys, 'argv', ['inference.py', *map(str, words)])
        try:
            runpy.run_path(str(TOOLS / 'inference.py'), run_name='__main__')
        except SystemExit as ended:
            return ended.code
        return None

    return call


def pixels(shape=(48, 64, 3)):
    return np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)


def test_deep_images_are_read_and_drawn_as_their_8_bit_copies(infer, tmp_path):
    cv2.imwrite(str(tmp_path / 'deep.png'), pixels())
    cv2.imwrite(str(tmp_path / 'flat.png'), to_8_bits(pixels(), 12))
    assert infer(tmp_path / 'deep.png', tmp_path / 'flat.png') is None
    deep, flat = (
        json.loads((tmp_path / f'out/preds/{name}.json').read_text())
        for name in ('deep', 'flat')
    )
    assert deep.pop('image') == str(tmp_path / 'deep.png')
    assert flat.pop('image') == str(tmp_path / 'flat.png')
    assert deep == flat
    deep, flat = (
        cv2.imread(str(tmp_path / f'out/vis/{name}.png')) for name in ('deep', 'flat')
    )
    assert np.array_equal(deep, flat)
    assert deep.max() > 200


@pytest.mark.parametrize('project', ['mmseg'], indirect=True)
def test_the_others_are_done_and_each_failure_named(infer, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    image = Image.fromarray(to_8_bits(pixels(), 12))
    for name in ('a.png', 'm.jpg', 'z.bmp'):
        image.save(photos / name)
    image.save(photos / 'cut.bmp')
    (photos / 'cut.bmp').write_bytes((photos / 'z.bmp').read_bytes()[:500])
    Image.new('RGB', (1, 1)).save(photos / 'dot.png')  # no room for a name on it
    told = infer(photos).split('\n')
    assert len(told) == 2
    assert told[0].startswith(f'error: {photos / "cut.bmp"} cannot be read as an image')
    assert told[1].startswith(f'error: {photos / "dot.png"} failed: IndexError: ')
    done = {path.name for path in (tmp_path / 'out/preds').glob('*.json')}
    assert done == {'a.json', 'm.json', 'z.json'}


@pytest.mark.parametrize('project', ['mmpretrain'], indirect=True)
def test_a_failure_of_all_images_is_told_once(infer, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise TypeError('no such thing\nas this')

    monkeypatch.setattr('mmpretrain.apis.ImageClassificationInferencer.__call__', fail)
    for i in range(3):
        Image.fromarray(to_8_bits(pixels(), 12)).save(tmp_path / f'{i}.png')
    images = sorted(tmp_path.glob('*.png'))
    assert (
        infer(*images) == 'error: all 3 images failed alike: TypeError: no such thing'
    )
    assert infer(images[0]) == f'error: {images[0]} failed: TypeError: no such thing'


def test_strips_of_which_resizing_leaves_nothing_are_named(tmp_path):
    for size in ((600, 1), (64, 64)):
        Image.new('RGB', size).save(tmp_path / f'{size[0]}.png')
    images, problems = find_images([str(tmp_path)], longest_side=96)
    assert images == [tmp_path / '64.png']
    assert problems[0].startswith(f'{tmp_path / "600.png"} is 600×1 pixels; resized to')
    assert find_images([str(tmp_path)])[1] == []


def test_hidden_images_are_left_out(tmp_path):
    for name in ('a.png', '._a.png'):
        Image.new('RGB', (4, 4)).save(tmp_path / name)
    assert find_images([str(tmp_path)]) == ([tmp_path / 'a.png'], [])
