"""tools/test.py draws each image into a file of its own."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmravlt.openmmlab.drawing import DrawEachImage, shrink

from .processes import run_tool
from .tiny import CONFIGS
from .untrained import move, write_untrained

PATHS = ['/data/a/0.jpg', '/data/b/0.jpg', '/data/b/0.png', '/data/b/deep/0.jpg']


class OneByOne(Hook):
    """Names drawings as the libraries do."""

    def __init__(self, visualizer):
        self._visualizer = visualizer

    def after_test_iter(self, runner, batch_idx, data_batch, outputs):
        for sample in outputs:
            name, image = sample.img_path.split('/')[-1], np.zeros((2, 2, 3))
            self._visualizer.add_datasample(name, image, data_sample=sample, step=0)


class Files:
    """Keeps the names of the files that it should draw into."""

    def __init__(self, error=None):
        self.names, self.error = [], error

    def add_datasample(self, name, image, data_sample, out_file, step):
        if self.error and 'deep' in data_sample.img_path:
            raise self.error
        self.names.append(out_file)


@pytest.fixture
def draw():
    """Draws a test on images of these paths; returns what was warned of."""

    def call(files, paths):
        HOOKS.register_module(module=OneByOne, force=True)
        warned = []
        samples = [SimpleNamespace(img_path=path) for path in paths]
        dataset = type('Dataset', (), {'__len__': lambda self: len(paths)})()
        dataset.get_data_info = lambda i: dict(img_path=paths[i])
        runner = SimpleNamespace(
            logger=SimpleNamespace(warning=warned.append),
            test_dataloader=SimpleNamespace(dataset=dataset),
        )
        hook = DrawEachImage(dict(type='OneByOne', visualizer=files), '/drawn')
        hook.before_test(runner)
        hook.after_test_iter(runner, 0, None, samples)
        return warned

    yield call
    HOOKS.module_dict.pop('OneByOne', None)


def test_folders_below_the_common_one_are_kept(draw):
    files = Files()
    assert draw(files, PATHS) == []
    assert files.names == [f'/drawn/{path[6:]}.png' for path in PATHS]
    files = Files()
    draw(files, PATHS[:1])
    assert files.names == ['/drawn/0.jpg.png']


def test_what_cannot_be_drawn_is_told(draw):
    files = Files(error=IndexError('too small'))
    (warned,) = draw(files, PATHS)
    assert warned.startswith(f'{PATHS[3]} could not be drawn (IndexError: too small)')
    assert len(files.names) == 3


def test_a_folder_that_cannot_be_written_to_is_no_matter_of_one_image(draw):
    with pytest.raises(PermissionError):
        draw(Files(error=PermissionError('no')), PATHS)


def test_large_images_are_drawn_smaller(monkeypatch):
    image = np.arange(60 * 40 * 3).reshape(60, 40, 3)
    masks = torch.rand(2, 60, 40) > 0.5
    boxes = torch.tensor([[0.0, 3, 30, 33], [6, 6, 9, 9]])
    labels = torch.arange(60 * 40).reshape(1, 60, 40)
    sample = BaseDataElement(metainfo=dict(img_path='a.png'))
    sample.found = InstanceData(bboxes=boxes, masks=masks, scores=torch.ones(2))
    sample.map = PixelData(data=labels)
    same = shrink(image, sample)
    assert same[0] is image and same[1] is sample
    monkeypatch.setattr('mmravlt.openmmlab.drawing.LARGEST_DRAWING', 300)
    small, found = shrink(image, sample)
    assert np.array_equal(small, image[::3, ::3])
    assert torch.equal(found.found.bboxes, boxes / 3)
    assert torch.equal(found.found.masks, masks[:, ::3, ::3])
    assert torch.equal(found.map.data, labels[:, ::3, ::3])
    assert found.img_path == 'a.png'
    assert torch.equal(sample.found.bboxes, boxes)
    assert torch.equal(sample.found.masks, masks)
    assert torch.equal(sample.map.data, labels)


@pytest.mark.slow
@pytest.mark.parametrize('library', CONFIGS)
def test_each_library_draws_images_of_equal_names(library, tmp_path):
    write_untrained(tmp_path, library)
    data = tmp_path / 'data'
    if library == 'mmdet':
        file = data / 'annotations/instances_val.json'
        content = json.loads(file.read_text())
        names = [f'cam{i}/0.jpg' for i in range(len(content['images']))]
        (folder,) = {p.parent for p in data.rglob(content['images'][0]['file_name'])
                     if 'val' in str(p.parent)}  # fmt: skip
        for image, name in zip(content['images'], names, strict=True):
            move(folder / image['file_name'], folder / name)
            image['file_name'] = name
        file.write_text(json.dumps(content))
    elif library == 'mmseg':
        names = [f'cam{i}/0.jpg' for i in range(4)]
        for i in range(4):
            move(data / f'images/{i}.jpg', data / f'images/cam{i}/0.jpg')
            move(data / f'labels/{i}.png', data / f'labels/cam{i}/0.png')
    else:
        names = ['even/0.png', 'even/2.png', 'odd/0.png', 'odd/2.png']
        move(data / 'odd/1.png', data / 'odd/0.png')
        move(data / 'odd/3.png', data / 'odd/2.png')
    words = ('config.py', 'weights.pth', '--work-dir', 'tested', '--show-dir', 'drawn')
    run_tool('test.py', *words, cwd=tmp_path)
    drawn = tmp_path / 'drawn'
    found = sorted(str(p.relative_to(drawn)) for p in drawn.rglob('*') if p.is_file())
    assert found == [f'{name}.png' for name in names]
    assert all(cv2.imread(str(drawn / name)) is not None for name in found)


@pytest.mark.slow
def test_images_that_are_read_otherwise_than_in_training_are_told(tmp_path):
    write_untrained(tmp_path, 'mmpretrain', bit_depth=12)
    words = ('config.py', 'weights.pth', '--work-dir', 'tested')
    text = (tmp_path / 'config.py').read_text()
    said = 'were read as 12 bits in training and are read as 16 here'
    assert said not in run_tool('test.py', *words, cwd=tmp_path).stdout
    (tmp_path / 'config.py').write_text(
        text + "\ntest_dataloader['dataset']['pipeline'].pop(1)\n"
    )
    assert said in run_tool('test.py', *words, cwd=tmp_path).stdout
