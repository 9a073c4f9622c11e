"""Tables of objects for tests, and what the check says of them."""

from pathlib import Path

import pytest

from mmravlt.data import DataError, DataOptions, Findings
from mmravlt.data.objects import ObjectTables, check_objects

WIDTH, HEIGHT = 100, 80
SIZE = ((WIDTH, HEIGHT), (WIDTH, HEIGHT))
NAN, INFINITY = float('nan'), float('inf')


def rectangle(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def make(boxes, shapes=True):
    """Tables with an image for each box, of two classes by turns."""
    rows = [
        dict(id=i, image_id=i, category_id=1 + i % 2, iscrowd=0, bbox=[*box])
        for i, box in enumerate(boxes, 1)
    ]
    for row in rows:
        row['area'] = row['bbox'][2] * row['bbox'][3]
        if shapes:
            row['segmentation'] = [rectangle(*row['bbox'])]
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT)
        for i in range(1, len(boxes) + 1)
    ]
    categories = [dict(id=1, name='ant'), dict(id=2, name='bee')]
    content = dict(images=images, annotations=rows, categories=categories)
    return ObjectTables(Path('some.json'), Path('images'), content)


BOXES = [(10 + 5 * i, 20, 30 + i, 40) for i in range(6)]


def check(tables, split='train', masks=True, sizes=None, **options):
    """The notes of a check, all in one text."""
    findings = Findings()
    sizes = sizes or [SIZE] * len(tables.content['images'])
    options = DataOptions(masks=masks, **options)
    check_objects(tables, split, options, findings, sizes)
    return ' '.join(findings.notes())


def refused(tables, message, **kwargs):
    with pytest.raises(DataError, match=message) as caught:
        check(tables, **kwargs)
    assert '\n' not in str(caught.value)


def rows_of(tables):
    return tables.content['annotations']
