"""The generated dataset of the demo, which other tests use too."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from demo import shapes

from .processes import run_python


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_equal_arguments_give_equal_files_and_other_seeds_others(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        shapes.write_shapes(tmp_path / name, 3, 2, size=64, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in 'abc')
    assert len(a) == 2 + 3 + 2
    assert a == b
    assert a.keys() == c.keys() and a != c


def test_masks_boxes_and_pixels_agree(tmp_path):
    shapes.write_shapes(tmp_path, num_train=8, num_val=1, size=128)
    coco = COCO(tmp_path / 'annotations/instances_train.json')
    assert [c['name'] for c in coco.dataset['categories']] == list(shapes.CLASSES)
    assert len({a['category_id'] for a in coco.dataset['annotations']}) > 2
    for image in coco.dataset['images']:
        pixels = cv2.imread(str(tmp_path / 'train' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        annotations = coco.imgToAnns[image['id']]
        masks = np.array([coco.annToMask(a) for a in annotations])
        assert len(masks) >= 1
        assert masks.sum(0).max() == 1  # no two shapes overlap
        for annotation, mask in zip(annotations, masks, strict=True):
            x, y, width, height = annotation['bbox']
            rows, columns = np.nonzero(mask)  # sharp tips cover no whole pixel
            assert columns.min() == pytest.approx(x, abs=2.5)
            assert rows.min() == pytest.approx(y, abs=2.5)
            assert columns.max() + 1 == pytest.approx(x + width, abs=2.5)
            assert rows.max() + 1 == pytest.approx(y + height, abs=2.5)
            assert mask.sum() == pytest.approx(annotation['area'], rel=0.12)
        inside = masks.sum(0) > 0
        assert pixels.max(2)[inside].mean() > pixels.max(2)[~inside].mean() + 50


def test_a_set_is_complete_only_as_it_was_asked_for(tmp_path):
    assert not shapes.is_complete(tmp_path, 2, 1, 64)
    shapes.write_shapes(tmp_path, 2, 1, 64)
    assert shapes.is_complete(tmp_path, 2, 1, 64)
    assert not shapes.is_complete(tmp_path, 3, 1, 64)
    next((tmp_path / 'train').iterdir()).unlink()
    assert not shapes.is_complete(tmp_path, 2, 1, 64)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--train', '0'], 'error: train is 0; give at least 1.'),
        (['--size', '8'], 'error: size is 8; give at least 32.'),
    ],
)
def test_nonsense_gets_one_sentence(arguments, message, tmp_path):
    script = Path(shapes.__file__)
    done = run_python(script, tmp_path / 'x', *arguments, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == message
