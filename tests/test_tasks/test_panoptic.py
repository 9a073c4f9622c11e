"""Panoptic segmentation: which configs it has, `--data`, scores and the tools."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from panopticapi.utils import rgb2id

from demo.shapes import CLASSES, write_shapes
from mmravlt import config_path, tasks
from mmravlt.openmmlab.device import adapt_to_device
from mmravlt.tasks import DataError, use_custom_data

from ..processes import run_tool
from ..tiny import PANOPTIC, STUFF, write_panoptic_shapes

TRAIN, VAL = (f'annotations/panoptic_{split}.json' for split in ('train', 'val'))
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco{}.py'


def inherit(base):
    return Config.fromstring(f'_base_ = {base!r}', '.py')


def panoptic_fpn():
    return Config.fromfile(config_path('mmdet/panoptic_fpn_ravlt_t_1x.py'))


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_panoptic_shapes(folder)
    return folder


@pytest.fixture
def data(shapes, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(shapes, tmp_path / 'data')


@pytest.mark.parametrize(
    'base,name',
    [
        ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'panoptic'),
        (MASK2FORMER.format('-panoptic'), 'panoptic'),
        (MASK2FORMER.format(''), 'detection and instance'),
        (config_path('mmdet/mask_rcnn_ravlt_t_1x.py'), 'detection and instance'),
        (config_path('mmseg/semantic_fpn_ravlt_t_1x.py'), 'semantic'),
        (config_path('mmpretrain/ravlt_t_in1k.py'), 'classification'),
    ],
)
def test_the_task_of_a_config_goes_by_its_library_and_its_heads(base, name):
    assert tasks.of(inherit(base)).name.startswith(name)


def test_a_config_of_no_task_is_refused_with_the_libraries():
    with pytest.raises(tasks.TaskError, match="mmdet, mmseg, mmpretrain .*'mmpose'"):
        tasks.of(Config(dict(default_scope='mmpose')))


def test_classes_heads_data_and_evaluators_follow_the_folder(shapes):
    cfg = panoptic_fpn()
    use_custom_data(cfg, str(shapes))
    things, stuff = len(CLASSES), len(STUFF)
    for head in ('semantic_head', 'panoptic_fusion_head'):
        assert cfg.model[head].num_things_classes == things
        assert cfg.model[head].num_stuff_classes == stuff
    assert cfg.model.roi_head.bbox_head.num_classes == things
    assert cfg.model.roi_head.mask_head.num_classes == things
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        name = 'train' if split == 'train' else 'val'
        assert dataset.type == 'CocoPanopticDataset'
        assert dataset.metainfo.classes == (*CLASSES, *STUFF)
        assert dataset.metainfo.stuff_classes == STUFF
        assert dataset.ann_file == f'annotations/panoptic_{name}.json'
        assert dataset.data_prefix == dict(img=name, seg=f'annotations/panoptic_{name}')
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'CocoPanopticMetric'
        assert evaluator.ann_file == str(shapes / VAL)
        assert evaluator.seg_prefix == str(shapes / 'annotations/panoptic_val')


def test_mask2former_takes_the_data_too(shapes):
    cfg = inherit(MASK2FORMER.format('-panoptic'))
    use_custom_data(cfg, str(shapes))
    head = cfg.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (4, 2)
    assert head.loss_cls.class_weight == [1.0] * 6 + [0.1]
    assert cfg.model.panoptic_fusion_head.num_stuff_classes == 2
    # its metric of objects needs their own annotations, which the folder lacks
    assert cfg.val_evaluator.type == 'CocoPanopticMetric'


def read_truth(folder):
    """A dataset of the folder's validation images, and their maps of labels."""
    cfg = panoptic_fpn()
    use_custom_data(cfg, str(folder), training=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    maps = []
    for row in json.loads((folder / VAL).read_text())['annotations']:
        path = folder / 'annotations/panoptic_val' / row['file_name']
        ids = rgb2id(cv2.imread(str(path))[..., ::-1])
        truth = np.full(ids.shape, len(CLASSES) + len(STUFF))
        for number, segment in enumerate(row['segments_info']):
            label = segment['category_id'] // 10 - 1
            is_thing = label < len(CLASSES)
            truth[ids == segment['id']] = label + is_thing * 1000 * (number + 1)
        maps.append(truth)
    return cfg, dataset, maps


def test_mmdet_reads_the_labels_that_the_folder_has(shapes):
    _, dataset, maps = read_truth(shapes)
    load = dataset.pipeline.transforms[2]
    for i, truth in enumerate(maps):
        info = dict(dataset.get_data_info(i), ori_shape=truth.shape)
        read = load.transform(info)
        labels = np.where(truth % 1000 == 6, 255, truth % 1000)
        assert (read['gt_seg_map'] == labels).all()
        objects = np.unique(truth[truth >= 1000])
        assert sorted(read['gt_bboxes_labels']) == sorted(objects % 1000)
        assert read['gt_masks'].masks.sum() == (truth >= 1000).sum()


@pytest.mark.parametrize('swapped,quality', [(False, 100), (True, 0)])
def test_the_truth_scores_100_and_other_classes_score_0(swapped, quality, shapes):
    cfg, dataset, maps = read_truth(shapes)
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    for i, truth in enumerate(maps):
        if swapped:  # each thing is another one, and sky is floor
            things, stuff = truth >= 1000, (truth >= 4) & (truth < 6)
            truth = np.where(things, truth - truth % 1000 + (truth + 1) % 4, truth)
            truth = np.where(stuff, 9 - truth, truth)
        sample = dataset[i]['data_samples'].to_dict()
        sample['pred_panoptic_seg'] = dict(sem_seg=torch.from_numpy(truth[None]))
        metric.process({}, [sample])
    scores = metric.evaluate(len(maps))
    for kind in ('PQ', 'PQ_th', 'PQ_st'):
        assert scores[f'coco_panoptic/{kind}'] == pytest.approx(quality)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edited(change, ann_file=VAL):
    return lambda folder: edit(folder / ann_file, change)


def segment(content):
    return content['annotations'][0]['segments_info'][0]


def segments(content):
    return [s for row in content['annotations'] for s in row['segments_info']]


def first_map(folder):
    return min((folder / 'annotations/panoptic_val').iterdir())


def redraw(change):
    def damage(folder):
        path = str(first_map(folder))
        cv2.imwrite(path, change(cv2.imread(path)))

    return damage


def rename_images(name):
    def change(content):
        content['images'][0]['file_name'] = name

    return edited(change)


BROKEN = {
    'must hold exactly one annotations/panoptic_val': lambda f: (f / VAL).unlink(),
    r"categories\[0\] has 'isthing': None": edited(
        lambda c: c['categories'][0].pop('isthing')
    ),
    "lists the stuff 'sky' before the last of its things, 'star'": edited(
        lambda c: c['categories'].insert(0, c['categories'].pop(4))
    ),
    'has 6 categories of things .* and 0 of stuff': edited(
        lambda c: [row.update(isthing=1) for row in c['categories']]
    ),
    "names the category 'sky' twice": edited(
        lambda c: c['categories'][5].update(name='sky')
    ),
    'must list the same categories in the same order': edited(
        lambda c: c['categories'][0].update(name='disc')
    ),
    'must list the same things in the same order': edited(
        lambda c: c['categories'][4].update(isthing=1)
    ),
    'has no map for the image': edited(lambda c: c['annotations'].pop()),
    "map with image_id 99, which is not in 'images'": edited(
        lambda c: c['annotations'][0].update(image_id=99)
    ),
    'has two maps for one image': edited(
        lambda c: c['annotations'].append(c['annotations'][0])
    ),
    "lists the image 'a/b.jpg'; mmdet needs names": rename_images('a/b.jpg'),
    "lists the image 'b.jpeg'; mmdet needs names": rename_images('b.jpeg'),
    "the map of 'c.jpg' is '00000.png', but mmdet looks for 'c.png'": (
        rename_images('c.jpg')
    ),
    "segments_info.0. of '00000.png' has iscrowd '0'; give 0 or 1": edited(
        lambda c: segment(c).update(iscrowd='0')
    ),
    "has category_id '50', .* where 50 is of another type": edited(
        lambda c: segment(c).update(category_id='50')
    ),
    r"segments_info.0. of '00000.png' has bbox \[nan, 0, 1, 1\]; give": edited(
        lambda c: segment(c).update(bbox=[float('nan'), 0, 1, 1])
    ),
    r'the boxes of the file seem to be \[x1, y1, x2, y2\]': edited(
        lambda c: [
            s.update(
                bbox=[*s['bbox'][:2], *np.add(s['bbox'][:2], s['bbox'][2:]).tolist()]
            )
            for s in segments(c)
        ]
    ),
    r'these are relative': edited(
        lambda c: [s.update(bbox=[x / 64 for x in s['bbox']]) for s in segments(c)]
    ),
    'has an empty name for the category with id 10': edited(
        lambda c: c['categories'][0].update(name=' ')
    ),
    "has the ids 10 and 'x' in 'categories'": edited(
        lambda c: c['categories'][5].update(id='x')
    ),
    "'00000.png' is 128×64 pixels there, but its file is 64×64": edited(
        lambda c: c['images'][0].update(width=128)
    ),
    'has no segments but crowds to score. val: .* segments are crowds': edited(
        lambda c: [s.update(iscrowd=1) for s in segments(c)]
    ),
    "has category_id 5, which is not in 'categories'": edited(
        lambda c: segment(c).update(category_id=5)
    ),
    'has the id 0; give one from 1': edited(lambda c: segment(c).update(id=0)),
    r'has bbox \[1, 2\]; give': edited(lambda c: segment(c).update(bbox=[1, 2])),
    'no segments of things but crowds': edited(
        lambda c: [s.update(iscrowd=1) for s in segments(c)], TRAIN
    ),
    'must hold a folder panoptic_val of PNG maps': lambda f: shutil.rmtree(
        f / 'annotations/panoptic_val'
    ),
    "lists 2 maps; 1 of them, such as '00000.png', are not in": lambda f: first_map(
        f
    ).unlink(),
    'cannot be read as an image': lambda f: first_map(f).write_bytes(b'x'),
    r'is no map of segments \(mode L\)': redraw(lambda pixels: pixels[..., 0]),
    'is 64×32 pixels, but its image is 64×64': redraw(lambda pixels: pixels[:32]),
    'must have the same ids, each once there; 999 is not so': edited(
        lambda c: c['annotations'][0]['segments_info'].append(dict(segment(c), id=999))
    ),
    'must have the same ids, each once there; 256 is not so': edited(
        lambda c: c['annotations'][0]['segments_info'].append(
            c['annotations'][0]['segments_info'][1]
        )
    ),
    'must have the same ids, each once there; 255 is not so': redraw(
        lambda pixels: pixels * (pixels != [0, 0, 255]).any(-1, keepdims=True)
    ),
}


@pytest.mark.parametrize('message', BROKEN)
def test_a_wrong_folder_ends_with_one_sentence(message, data):
    BROKEN[message](data)
    with pytest.raises(DataError, match=message) as raised:
        use_custom_data(panoptic_fpn(), str(data))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'key,values',
    [
        ('area', [0, -1, float('nan'), 10**6, 10**400, None, '7']),
        ('bbox', [[0, 0, 0, 0], [5, 5, 0.5, 9], None, [0, 0, 1, 1]]),
    ],
)
def test_areas_and_boxes_that_maps_contradict_are_taken_from_these(key, values, data):
    truth = json.loads((data / VAL).read_text())
    for value in values:
        edit(data / VAL, lambda c, value=value: segment(c).update({key: value}))
        cfg, dataset, maps = read_truth(data)
        mended = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
        assert mended == truth
        assert len(dataset.get_data_info(0)['segments_info']) == len(
            truth['annotations'][0]['segments_info']
        )
    prepared = use_custom_data(panoptic_fpn(), str(data))
    (note,) = [note for note in prepared.notes if 'have another' in note]
    assert note.startswith(f'val: 1 segments have another {key} than in their map')
    assert cfg.test_evaluator.seg_prefix == str(data / 'annotations/panoptic_val')


def test_what_is_not_used_is_counted(data):
    edit(data / TRAIN, lambda c: segment(c).update(iscrowd=1))
    edit(data / VAL, lambda c: [s.pop('iscrowd') for s in segments(c)])
    edit(data / VAL, lambda c: c['images'][0].pop('width'))
    notes = ' '.join(use_custom_data(panoptic_fpn(), str(data)).notes)
    assert 'train: 1 segments are crowds' in notes
    assert 'val: 1 images have no whole numbers for width and height' in notes


def test_a_training_image_of_stuff_alone_is_counted(data):
    def make_things_crowds(content):
        for each in content['annotations'][0]['segments_info']:
            each['iscrowd'] = int(each['category_id'] <= 40)

    edit(data / TRAIN, make_things_crowds)
    notes = ' '.join(use_custom_data(panoptic_fpn(), str(data)).notes)
    assert (
        "train: 1 images have no things; training leaves them out (first: '00000"
        in (notes)
    )


def test_data_of_the_other_kind_is_named(shapes, tmp_path):
    detector = Config.fromfile(config_path('mmdet/mask_rcnn_ravlt_t_1x.py'))
    with pytest.raises(DataError, match='panoptic_train.json, which holds things and'):
        use_custom_data(detector, str(shapes))
    write_shapes(tmp_path, num_train=1, num_val=1, size=64)
    with pytest.raises(DataError, match='instances_train.json, which holds objects,'):
        use_custom_data(panoptic_fpn(), str(tmp_path))


def test_testing_needs_no_training_data(data):
    (data / TRAIN).unlink()
    cfg = panoptic_fpn()
    use_custom_data(cfg, str(data), training=False)
    assert cfg.model.semantic_head.num_stuff_classes == len(STUFF)


def test_the_sample_has_a_loss_of_every_head(shapes):
    cfg = Config.fromstring(PANOPTIC, '.py')
    use_custom_data(cfg, str(shapes))
    adapt_to_device(cfg)
    task = tasks.of(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        losses = model(torch.rand(1, 3, 64, 96), [task.sample((64, 96))], mode='loss')
    assert {'loss_rpn_cls', 'loss_cls', 'loss_mask', 'loss_seg'} <= losses.keys()
    total, _ = model.parse_losses(losses)
    assert total.isfinite()


@pytest.mark.slow
def test_training_test_and_prediction_work_with_own_data(tmp_path):
    write_panoptic_shapes(tmp_path / 'data')
    (tmp_path / 'config.py').write_text(PANOPTIC)
    for words in (
        'train.py config.py --data data --work-dir work --cfg-options '
        'train_cfg.max_epochs=1',
        'test.py config.py work/epoch_1.pth --data data --work-dir tested '
        '--show-dir drawn --out predictions.pkl',
        'inference.py work/config.py work/epoch_1.pth data/val --out-dir out',
    ):
        run_tool(*words.split(), cwd=tmp_path)
    (scalars,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert all(np.isfinite(r['loss_seg']) for r in records if 'loss' in r)
    (metrics,) = (tmp_path / 'tested').glob('*/*.json')
    scores = json.loads(metrics.read_text())
    assert 0 <= scores['coco_panoptic/PQ'] <= 100
    assert scores['coco_panoptic/PQ'] == pytest.approx(records[-1]['coco_panoptic/PQ'])
    assert len(list((tmp_path / 'drawn').iterdir())) == 2
    assert (tmp_path / 'predictions.pkl').is_file()
    for name in ('00000', '00001'):
        assert cv2.imread(str(tmp_path / f'out/vis/{name}.png')).shape == (64, 64, 3)
        ids = rgb2id(cv2.imread(str(tmp_path / f'out/preds/{name}.png'))[..., ::-1])
        found = json.loads((tmp_path / f'out/preds/{name}.json').read_text())
        areas = {s['id']: s['area'] for s in found['segments']}
        assert areas == {i: (ids == i).sum() for i in np.unique(ids) if i}
        for each in found['segments']:
            assert each['class'] == (*CLASSES, *STUFF)[each['label']]
            assert each['is_thing'] == (each['class'] in CLASSES)
