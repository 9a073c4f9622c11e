"""`--data DIR` points a detection config at a COCO-style folder."""

import shutil

import pytest
from mmengine.config import Config

from mmravlt import config_path
from mmravlt.tasks import DataError, use_custom_data

from .detection import TRAIN, class_names, edit, mask_rcnn


def test_classes_heads_data_and_evaluators_follow_the_folder(shapes):
    cfg = mask_rcnn()
    use_custom_data(cfg, str(shapes))
    names = class_names(shapes)
    assert len(names) >= 3
    assert cfg.model.roi_head.bbox_head.num_classes == len(names)
    assert cfg.model.roi_head.mask_head.num_classes == len(names)
    assert 'num_classes' not in cfg.model.rpn_head
    for split, loader in (
        ('train', cfg.train_dataloader),
        ('val', cfg.val_dataloader),
        ('val', cfg.test_dataloader),
    ):
        assert loader.dataset.metainfo.classes == names
        assert loader.dataset.data_root == str(shapes)
        assert loader.dataset.ann_file == f'annotations/instances_{split}.json'
        assert loader.dataset.data_prefix.img == split
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == f'{shapes}/annotations/instances_val.json'
        assert evaluator.metric == ['bbox', 'segm']
    assert cfg.val_dataloader.dataset.test_mode

    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 3
    assert len(dataset[0]['data_samples'].gt_instances.labels) > 0


@pytest.mark.parametrize(
    'name,heads,metrics',
    [
        ('retinanet/retinanet_r50_fpn_1x_coco.py', 1, 'bbox'),
        ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 4, ['bbox', 'segm']),
        ('yolox/yolox_s_8xb8-300e_coco.py', 1, 'bbox'),  # wraps its dataset
        ('pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', 1, ['bbox']),  # another type
        ('lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py', 2, ['bbox', 'segm']),
    ],
)
def test_any_detection_config_of_mmdet_follows(name, heads, metrics, shapes, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = 'mmdet::{name}'")
    cfg = Config.fromfile(config)
    if 'voc' in name:
        with pytest.raises(
            DataError, match='replace the 2 datasets of a ConcatDataset'
        ):
            use_custom_data(cfg, str(shapes))
        cfg.train_dataloader.dataset = cfg.val_dataloader.dataset
    use_custom_data(cfg, str(shapes))
    classes = class_names(shapes)
    counts = []

    def collect(node):
        if isinstance(node, dict):
            counts.extend(v for k, v in node.items() if k == 'num_classes')
            node = list(node.values())
        if isinstance(node, list | tuple):
            for child in node:
                collect(child)

    collect(cfg.model)
    assert counts == [len(classes)] * heads
    for split in ('train', 'val', 'test'):
        text = str(cfg[f'{split}_dataloader'])
        assert text.count("'CocoDataset'") == 1
        assert str(shapes) in text
    assert cfg.val_evaluator.type == 'CocoMetric'
    assert cfg.val_evaluator.metric == metrics
    assert cfg.val_evaluator.ann_file == f'{shapes}/annotations/instances_val.json'


@pytest.mark.parametrize(
    'suffix,image_folder',
    [
        ('2017', '{split}2017'),
        ('', 'images/{split}'),
        ('', 'images'),
        ('', '.'),
        ('_v1.2', '{split}'),
    ],
)
def test_image_folders_are_found_where_people_put_them(data, suffix, image_folder):
    for split in ('train', 'val'):
        annotations = data / 'annotations'
        file = annotations / f'instances_{split}.json'
        file.rename(annotations / f'instances_{split}{suffix}.json')
        target = data / image_folder.format(split=split)
        target.mkdir(parents=True, exist_ok=True)
        if target != data / split:
            for image in (data / split).iterdir():
                image.rename(target / f'{split}_{image.name}')
            (data / split).rmdir()

            def rename(content, split=split):
                for image in content['images']:
                    image['file_name'] = f'{split}_{image["file_name"]}'

            edit(annotations / f'instances_{split}{suffix}.json', rename)
    cfg = mask_rcnn()
    use_custom_data(cfg, str(data))
    prefix = cfg.train_dataloader.dataset.data_prefix.img
    assert (data / prefix).resolve() == (
        data / image_folder.format(split='train')
    ).resolve()


def test_a_dataset_inside_a_wrapper_is_replaced(shapes):
    cfg = mask_rcnn()
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset
    )
    use_custom_data(cfg, str(shapes))
    assert cfg.train_dataloader.dataset.type == 'RepeatDataset'
    assert cfg.train_dataloader.dataset.dataset.data_root == str(shapes)


def test_a_config_without_masks_needs_no_segmentation(data):
    def drop_segmentation(content):
        for annotation in content['annotations']:
            del annotation['segmentation']

    for split in ('train', 'val'):
        edit(data / f'annotations/instances_{split}.json', drop_segmentation)
    cfg = Config.fromfile(config_path('mmdet/mask_rcnn_ravlt_t_1x.py'))
    with pytest.raises(DataError, match='id 1 .* has no segmentation.*without masks'):
        use_custom_data(cfg, str(data))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for step in loader.dataset.pipeline:
            step.pop('with_mask', None)
    use_custom_data(cfg, str(data))
    assert cfg.model.roi_head.bbox_head.num_classes == len(class_names(data))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match='nowhere: there is no such folder'):
        use_custom_data(mask_rcnn(), str(tmp_path / 'nowhere'))


def test_a_config_with_panoptic_heads_is_refused(shapes, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'"
    )
    with pytest.raises(DataError, match='does not know panoptic heads'):
        use_custom_data(Config.fromfile(config), str(shapes))


def test_a_config_without_validation_is_refused(shapes):
    cfg = mask_rcnn()
    cfg.val_dataloader = None
    with pytest.raises(
        DataError, match='needs a config with a val_dataloader; it has none'
    ):
        use_custom_data(cfg, str(shapes))


def test_testing_needs_no_training_data(data):
    (data / TRAIN).unlink()
    shutil.rmtree(data / 'train')
    cfg = mask_rcnn()
    use_custom_data(cfg, str(data), training=False)
    assert cfg.test_dataloader.dataset.data_root == str(data)
    assert cfg.test_evaluator.ann_file == f'{data}/annotations/instances_val.json'
    assert cfg.model.roi_head.bbox_head.num_classes >= 3


def test_a_config_without_test_set_stays_without(shapes):
    cfg = mask_rcnn()
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    use_custom_data(cfg, str(shapes))
    assert cfg.test_dataloader is None and cfg.test_evaluator is None


def test_a_config_of_another_library_is_refused(shapes):
    with pytest.raises(DataError, match="of mmdet, mmseg, mmpretrain .*'mmpose'"):
        use_custom_data(Config(dict(default_scope='mmpose')), str(shapes))
