"""Polygons and run-length codes: what they cover, and what is broken about them."""

import numpy as np
import pytest
from pycocotools import mask as pycoco

from mmravlt.data import DataError
from mmravlt.data.masks import decode_counts, measure_shapes

SQUARE = [10, 20, 30, 20, 30, 50, 10, 50]
THIN = [5, 5, 5.01, 5, 5.01, 60, 5, 60]  # between the middles of two columns


def measure(*shapes, size=(64, 64), needed=True):
    rows = [dict(segmentation=shape) for shape in shapes]
    sizes = np.array([size] * len(rows))
    return measure_shapes(rows, sizes, lambda i: f'row {i} has', needed)


def random_masks(count):
    rng = np.random.default_rng(0)
    for number in range(count):
        height, width = rng.integers(1, 60, 2)
        mask = (rng.random((height, width)) < rng.choice([0.05, 0.5, 1])).astype('u1')
        mask[: rng.integers(height + 1)] = 0
        mask[:, rng.integers(width + 1) :] = 0
        yield mask if number else np.zeros_like(mask)


def encode(mask):
    code = pycoco.encode(np.asfortranarray(mask))
    return dict(size=code['size'], counts=code['counts'].decode())


@pytest.mark.parametrize('compressed', [True, False])
def test_run_length_codes_are_read_as_pycocotools_reads_them(compressed):
    for mask in random_masks(40):
        code = encode(mask)
        (runs,), faults = decode_counts([code['counts']])
        assert not faults
        assert (np.repeat(np.arange(len(runs)) % 2, runs) == mask.T.ravel()).all()
        if not compressed:
            code['counts'] = runs.tolist()
        found = measure(code, size=mask.shape[::-1])
        if mask.any():
            y, x = np.nonzero(mask)
            ends = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert found.boxes[0].tolist() == ends
            assert found.areas[0] == mask.sum()
        else:
            assert found.faults == {0: 'a run-length code without a pixel'}
            assert np.isnan(found.boxes).all()


def test_codes_of_images_of_several_sizes_are_kept_apart():
    masks = [mask for mask in random_masks(30) if mask.any()]
    rows = [dict(segmentation=encode(mask)) for mask in masks]
    sizes = np.array([mask.shape[::-1] for mask in masks])
    together = measure_shapes(rows, sizes, str, True)
    for i, mask in enumerate(masks):
        alone = measure(encode(mask), size=mask.shape[::-1])
        assert together.boxes[i].tolist() == alone.boxes[0].tolist()
        assert together.areas[i] == mask.sum()


@pytest.mark.parametrize(
    'code,message',
    [
        (dict(size=[32, 128], counts=[4096]), r'size \[32, 128\].*\[64, 64\]'),
        (dict(size=[64.0, 64.0], counts=[4096]), r'size \[64.0, 64.0\]'),
        (dict(size='64', counts=[4096]), "size '64'"),
        (dict(size=[64, 64], counts=[3]), 'add up to 3, .* 64×64 = 4096 pixels'),
        (dict(size=[64, 64], counts=[4000, 97]), 'add up to 4097'),
        (dict(size=[64, 64], counts=[5000, -904]), 'add up to 4096, with -904 among'),
        (dict(size=[64, 64], counts=[2**80]), f'add up to {2**80}'),
        (dict(size=[64, 64], counts=[4000.0, 96]), 'with 4000.0 among its counts'),
        (dict(size=[64, 64], counts=['4096']), "with '4096' among its counts"),
        (dict(size=[64, 64], counts=[True] * 4096), 'with True among its counts'),
        (dict(size=[64, 64], counts=[]), 'add up to 0'),
        (dict(size=[64, 64], counts=''), 'add up to 0'),
        (dict(size=[64, 64], counts=None), 'with None for its counts'),
        (dict(size=[64, 64], counts='ä'), "with 'ä' among its characters"),
        (dict(size=[64, 64], counts='no mask'), "with ' ' among its characters"),
        (dict(size=[64, 64], counts='o'), 'that ends within a number'),
        (dict(size=[64, 64], counts='o' * 99), 'that ends within a number'),
        (dict(size=[64, 64], counts='ooooooo0'), 'of more than 7 characters'),
        (dict(size=[64, 64], counts='0ooooooO0'), 'add up to .*, with -.* among'),
    ],
)
def test_a_code_that_is_not_all_pixels_of_its_image_is_refused(code, message):
    good = dict(size=[64, 64], counts=[4096])
    with pytest.raises(DataError, match=f'^row 1 has a run-length code .*{message}'):
        measure(good, code)


def test_where_no_masks_are_needed_a_broken_code_is_no_shape():
    found = measure(dict(size=[64, 64], counts=[3]), [SQUARE], needed=False)
    assert found.faults == {0: 'a broken run-length code'}
    assert found.boxes[1].tolist() == [10, 20, 30, 50]
    with pytest.raises(DataError, match=r'size \[32, 128\]'):
        measure(dict(size=[32, 128], counts=[4096]), needed=False)


def test_a_polygon_is_measured_over_all_its_parts():
    triangle = [40, 40, 60, 40, 40, 60]
    found = measure([SQUARE], [SQUARE, triangle])
    assert found.boxes.tolist() == [[10, 20, 30, 50], [10, 20, 60, 60]]
    assert found.areas.tolist() == [600, 800]
    assert not (found.faults or found.mended or found.dropped)


FAULTS = {
    'an odd number of values': [*SQUARE, 5],
    'fewer than three points': [10, 20, 30, 20],
    'values that are no finite numbers': [*SQUARE[:-1], float('nan')],
    'points farther outside the image than it is large': [*SQUARE[:-1], 1e9],
    'no pixel inside the image': [x + 70 for x in SQUARE],
}
OTHERS = [
    ('values that are no finite numbers', [*SQUARE[:-1], float('inf')]),
    ('values that are no finite numbers', [*SQUARE[:-1], '50']),
    ('values that are no finite numbers', [*SQUARE[:-1], None]),
    ('values that are no finite numbers', [*SQUARE[:-1], 10**400]),
    ('values that are no finite numbers', 'polygon'),
    ('values that are no finite numbers', dict(size=[64, 64], counts=[4096])),
    ('fewer than three points', []),
    ('no pixel inside the image', [7, 7] * 4),
    ('no pixel inside the image', THIN),
    ('no pixel inside the image', [66, 0, 100, 0, 100, 66, 66, 66]),
]


@pytest.mark.parametrize('fault,part', [*FAULTS.items(), *OTHERS])
def test_a_broken_part_is_dropped_and_told(fault, part):
    found = measure([part], [part, SQUARE], [SQUARE])
    assert found.faults == {0: f'a polygon with {fault}'}
    assert found.dropped == [(1, fault)]
    assert found.mended == {1: [SQUARE]}
    assert np.isnan(found.boxes[0]).all() and np.isnan(found.areas[0])
    assert found.boxes[1:].tolist() == [[10, 20, 30, 50]] * 2


@pytest.mark.parametrize('shape', [None, [], {}, 'mask', dict(counts=[4096]), 7])
def test_what_is_no_shape_is_told(shape):
    found = measure(shape)
    assert found.faults == {0: 'no polygon and no run-length code'}


def test_numbers_without_a_list_around_them_are_one_part():
    found = measure(SQUARE)
    assert found.mended == {0: [SQUARE]}
    assert found.boxes[0].tolist() == [10, 20, 30, 50]


def test_polygons_without_pixels_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(300):
        middle, reach = rng.uniform(-20, 84, 2), rng.choice([0.2, 1, 3, 20])
        points = middle + rng.uniform(-reach, reach, (rng.integers(3, 7), 2))
        parts.append(points.ravel().tolist())
    drawn = [pycoco.area(pycoco.frPyObjects([part], 64, 64))[0] > 0 for part in parts]
    found = measure(*([part] for part in parts))
    assert 50 < sum(drawn) < 250
    assert [i not in found.faults for i in range(300)] == drawn
