"""Damaged COCO-style folders: what is mended, left out or refused with a sentence."""

import json
from pathlib import Path

import pytest
import torch

from mmravlt.tasks import DataError, use_custom_data

from .detection import TRAIN, edit, mask_rcnn


def remove(name):
    return lambda data: (data / name).unlink()


def write(name, text):
    return lambda data: (data / name).write_text(text)


def change_train(change):
    return lambda data: edit(data / TRAIN, change)


DAMAGES = {
    'a damaged image': (
        write('train/00000.png', 'no image'),
        r'train/00000\.png cannot be read as an image \(.*\); replace or remove it',
    ),
    'no train file': (
        remove(TRAIN),
        r'data must hold exactly one annotations/instances_train\*.json; found there: '
        'nothing',
    ),
    'two val files': (
        write('annotations/instances_val2.json', '{}'),
        'found there: instances_val.json, instances_val2.json',
    ),
    'not JSON': (write(TRAIN, 'Oops'), 'train.json cannot be read as JSON'),
    'a list': (
        write(TRAIN, '[]'),
        "not a COCO annotation file: it has no list 'images'",
    ),
    'no categories': (
        change_train(lambda c: c.pop('categories')),
        "it has no list 'categories'",
    ),
    'no classes': (
        change_train(lambda c: c.update(categories=[])),
        "empty list 'categories'",
    ),
    'nothing annotated': (
        change_train(lambda c: c.update(annotations=[])),
        'has no object that can be learnt or scored',
    ),
    'a row that is no object': (
        change_train(lambda c: c['annotations'].insert(0, None)),
        r"annotations\[0\] has 'image_id': None",
    ),
    'a file name that is no name': (
        change_train(lambda c: c['images'][0].update(file_name=7)),
        r"images\[0\] has 'file_name': 7, where a value of type str belongs",
    ),
    'a box that is no box': (
        change_train(lambda c: c['annotations'][0].update(bbox=[1, 2])),
        r'id 1 .* has bbox \[1, 2\]; give',
    ),
    'masks that are no masks': (
        change_train(
            lambda c: [row.update(segmentation=[[]]) for row in c['annotations']]
        ),
        r'no object that .* \d+ objects have a polygon with fewer than three points',
    ),
    'an image id twice': (
        change_train(lambda c: c['images'][1].update(id=1)),
        "has the id 1 twice in 'images'",
    ),
    'another size': (
        change_train(lambda c: c['images'][0].update(width=65)),
        "'00000.png' is 65×64 pixels there, but its file is 64×64",
    ),
    'a class without a name': (
        lambda data: [
            edit(path, lambda c: c['categories'][0].update(name=''))
            for path in (data / 'annotations').iterdir()
        ],
        'empty name for the category with id 1',
    ),
    'a folder for a file': (
        lambda data: ((data / TRAIN).unlink(), (data / TRAIN).mkdir()),
        'instances_train.json cannot be read as JSON',
    ),
    'unknown category': (
        change_train(lambda c: c['annotations'][0].update(category_id=99)),
        "id 1 has category_id 99, which is not in 'categories'",
    ),
    'unknown image': (
        change_train(lambda c: c['annotations'][0].update(image_id=99)),
        "id 1 has image_id 99, which is not in 'images'",
    ),
    'other classes in val': (
        change_train(lambda c: c['categories'].reverse()),
        'must list the same categories in the same order',
    ),
    'image missing': (
        lambda data: next((data / 'train').iterdir()).unlink(),
        r'lists 3 images; 1 of them, such as .* are not in .*train',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_folder_gets_one_sentence_that_names_the_place(damage, data):
    apply, message = DAMAGES[damage]
    apply(data)
    with pytest.raises(DataError, match=message) as caught:
        use_custom_data(mask_rcnn(), str(data))
    assert '\n' not in str(caught.value)


def make_up_ids(content):
    """Ids of images and categories are text, those of annotations not all numbers."""
    for table in ('images', 'categories'):
        for row in content[table]:
            row['id'] = f'no. {row["id"]}'
    for i, row in enumerate(content['annotations']):
        for key in ('image_id', 'category_id'):
            row[key] = f'no. {row[key]}'
        row['id'] = [0, 'x', None, i][i % 4]


def damage_some(content):
    """Of everything that is mended or left out, something."""
    images, rows = content['images'], content['annotations']
    assert len(rows) >= 4
    del images[0]['width'], rows[0]['area'], rows[0]['iscrowd']
    rows[0]['segmentation'] += [[1, 2, 3], [float('nan')] * 6]
    rows[1].update(area=0, bbox=[0, 0, 0, 0])
    good = rows[2]
    for number, change in enumerate(
        [
            dict(bbox=[1, 1, 0.5, 30], segmentation=None),
            dict(bbox=[64, 1, 20, 30], segmentation=None),
            dict(bbox=[1, 1, -5, 30], segmentation=None),
            dict(bbox=[50, 5, 20, 20], segmentation=[[50, 5, 70, 5, 70, 25, 50, 25]]),
            dict(segmentation=[[*good['segmentation'][0], 7]]),
            dict(segmentation=dict(size=[64, 64], counts=[4096])),
            dict(segmentation=dict(size=[64, 64], counts=[500, 700, 2896]), bbox=None),
            dict(iscrowd=1),
            dict(ignore=1),
        ],
        1000,
    ):
        rows.append({**good, 'id': number, **change})


def nothing(content):
    """Change nothing."""


@pytest.mark.parametrize('damage', [nothing, make_up_ids, damage_some])
def test_what_is_left_is_what_is_trained_and_scored_fully(damage, data):
    from mmdet.registry import DATASETS, METRICS
    from mmengine.registry import DefaultScope

    for split in ('train', 'val'):
        edit(data / f'annotations/instances_{split}.json', damage)
    cfg = mask_rcnn()
    prepared = use_custom_data(cfg, str(data))
    told = [note for note in prepared.notes if 'never occur' not in note]
    assert bool(told) == (damage is not nothing)
    with DefaultScope.overwrite_default_scope('mmdet'):
        train = DATASETS.build(cfg.train_dataloader.dataset)
        val = DATASETS.build(cfg.val_dataloader.dataset)
        metric = METRICS.build(cfg.val_evaluator)
    seen = [len(train[i]['data_samples'].gt_instances) for i in range(len(train))]
    assert sum(seen) == prepared.splits['train']['objects']
    metric.dataset_meta = val.metainfo
    count = 0
    for i in range(len(val)):
        sample = val[i]['data_samples']
        truth = sample.gt_instances
        found = dict(bboxes=truth.bboxes.tensor, labels=truth.labels)
        found['masks'] = torch.from_numpy(truth.masks.masks).bool()
        found['scores'] = torch.ones(len(truth))
        metric.process({}, [dict(sample.to_dict(), pred_instances=found)])
        count += len(truth)
    assert count == prepared.splits['val']['objects']
    scores = metric.evaluate(len(val))
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1


def test_a_file_of_objects_is_used_as_it_is_unless_something_is_mended(data):
    cfg = mask_rcnn()
    edit(data / 'annotations/instances_val.json', make_up_ids)
    content = json.loads((data / TRAIN).read_text())
    for key in ('images', 'categories'):
        content[key] = [dict(row, id=f'no. {row["id"]}') for row in content[key]]
    for row in content['annotations']:
        row.update({k: f'no. {row[k]}' for k in ('image_id', 'category_id')})
    (data / TRAIN).write_text(json.dumps(content))
    before = (data / 'annotations/instances_val.json').read_text()
    prepared = use_custom_data(cfg, str(data))
    assert cfg.train_dataloader.dataset.ann_file == TRAIN
    mended = cfg.val_evaluator.ann_file
    assert mended == prepared.splits['val']['ann_file'] != str(data / TRAIN)
    assert cfg.val_dataloader.dataset.ann_file == mended
    ids = [row['id'] for row in json.loads(Path(mended).read_text())['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    assert (data / 'annotations/instances_val.json').read_text() == before


def test_images_without_a_size_are_opened_even_without_the_check(data):
    edit(data / TRAIN, lambda content: content['images'][1].pop('height'))
    (data / 'train/00000.png').write_bytes(b'not opened')
    cfg = mask_rcnn()
    prepared = use_custom_data(cfg, str(data), check=False)
    images = json.loads(Path(prepared.splits['train']['ann_file']).read_text())[
        'images'
    ]
    assert [image['height'] for image in images] == [64] * 3
