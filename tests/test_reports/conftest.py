"""Small data of each kind, and the figures that are drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.shapes import write_shapes
from mmravlt import pictures
from mmravlt.reports import base

from ..tiny import write_panoptic_shapes
from .evaluations import config


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Objects of four classes; a crowd in validation, and no triangle there."""
    folder = tmp_path_factory.mktemp('shapes')
    write_shapes(folder, num_train=3, num_val=6, size=64)
    path = folder / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    (triangle,) = (c['id'] for c in content['categories'] if c['name'] == 'triangle')
    rows = [r for r in content['annotations'] if r['category_id'] != triangle]
    rows[0]['iscrowd'] = 1
    path.write_text(json.dumps({**content, 'annotations': rows}))
    return folder


@pytest.fixture(scope='module')
def maps(tmp_path_factory):
    """Maps of three classes, the upper rows ignored."""
    folder = tmp_path_factory.mktemp('maps')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(3):
            for kind, suffix in (('images', 'png'), ('annotations', 'png')):
                path = folder / kind / split / f'{i}.{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((40, 48, 3), 200, np.uint8)
                pixels[..., 2] = 0
                if kind == 'annotations':
                    pixels = rng.integers(0, 3, (40, 48)).astype(np.uint8)
                    pixels[:4] = 255
                Image.fromarray(pixels).save(path)
    (folder / 'classes.txt').write_text('road\ntree\nsky\n')
    return folder


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
    """Red images of three classes, not as many of each."""
    folder = tmp_path_factory.mktemp('classes')
    for split in ('train', 'val'):
        for name, count in (('ant', 4), ('bee', 2), ('cost in $', 7)):
            for i in range(count):
                path = folder / split / name / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new('RGB', (40, 50), (250, 10 * i, 0)).save(path)
    return folder


@pytest.fixture(scope='module')
def segments(tmp_path_factory):
    folder = tmp_path_factory.mktemp('segments')
    write_panoptic_shapes(folder)
    return folder


@pytest.fixture(scope='module')
def config_of(shapes, maps, classes, segments):
    """A config of a kind, on small data."""
    folders = dict(maps=maps, classes=classes, segments=segments)
    return lambda kind: config(kind, folders.get(kind, shapes))


@pytest.fixture
def figures(monkeypatch):
    """All figures that are drawn, in their order."""
    drawn = []

    def png(figure):
        drawn.append(figure)
        return pictures.png(figure)

    for module in (base, *_modules()):
        monkeypatch.setattr(module, 'png', png)
    return drawn


def _modules():
    from mmravlt.reports import confusion, precision

    return confusion, precision


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))
