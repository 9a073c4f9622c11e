"""`--data DIR` points a classification config at one folder of images per class."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmravlt import config_path
from mmravlt.tasks import DataError, use_custom_data

from ..processes import run_tool
from ..tiny import CLASSIFICATION

CLASSES = ('Ant', 'bee', 'cat')  # as Python sorts them


def in1k():
    return Config.fromfile(config_path('mmpretrain/ravlt_t_in1k.py'))


def mmpretrain_config(name, folder):
    config = folder / 'config.py'
    config.write_text(f"_base_ = 'mmpretrain::{name}'")
    return Config.fromfile(config)


@pytest.fixture
def data(tmp_path):
    """Two images of each class in train, one in val, as bright as their label."""
    folder = tmp_path / 'data'
    for split, count in (('train', 2), ('val', 1)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((40, 50, 3), 100 * label, np.uint8)
                suffix = 'WEBP' if i else 'jpg'
                Image.fromarray(pixels).save(folder / split / name / f'{i}.{suffix}')
    (folder / 'train/readme.txt').write_text('not an image')
    return folder


def build(cfg, split):
    from mmpretrain.registry import DATASETS

    init_default_scope('mmpretrain')
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def test_classes_heads_data_and_metrics_follow_the_folder(data):
    cfg = in1k()
    use_custom_data(cfg, str(data))
    assert cfg.model.head.num_classes == 3
    assert cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    for split, count in (('train', 6), ('val', 3), ('test', 3)):
        dataset = build(cfg, split)
        assert len(dataset) == count
        assert dataset.metainfo['classes'] == CLASSES
        for i in range(count):
            info = dataset.get_data_info(i)
            name = Path(info['img_path']).parent.name
            assert CLASSES[info['gt_label']] == name
        assert int(dataset[count - 1]['data_samples'].gt_label) == 2
    assert cfg.train_cfg.max_epochs == 300


@pytest.mark.parametrize(
    'name,counts',
    [
        ('swin_transformer/swin-tiny_16xb64_in1k.py', 1),  # Mixup and CutMix
        ('deit/deit-tiny_4xb256_in1k.py', 1),
        ('resnet/resnet50_8xb32_in1k.py', 1),
        ('resnet/resnet50_8xb8_cub.py', 1),  # another dataset
        ('mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py', 1),  # nested head
    ],
)
def test_configs_of_mmpretrain_follow(name, counts, data, tmp_path):
    cfg = mmpretrain_config(name, tmp_path)
    use_custom_data(cfg, str(data))
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.model.head.get('topk', (1,)) == (1,)
    assert cfg.test_evaluator.topk == (1,)
    for split, count in (('train', 6), ('val', 3), ('test', 3)):
        dataset = build(cfg, split)
        assert (type(dataset).__name__, len(dataset)) == ('CustomDataset', count)
        assert int(dataset[count - 1]['data_samples'].gt_label) == 2


def test_labels_of_mixed_images_have_one_entry_per_class(data):
    from mmengine.dataset import pseudo_collate
    from mmpretrain.registry import MODELS

    cfg = in1k()
    use_custom_data(cfg, str(data))
    dataset = build(cfg, 'train')
    model = dict(cfg.model, backbone=dict(type='LeNet5'), neck=None)
    model['data_preprocessor'] = dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    model = MODELS.build(model)
    batch = pseudo_collate([dataset[0], dataset[5]])
    batch = model.data_preprocessor(batch, training=True)
    for sample in batch['data_samples']:
        assert sample.gt_score.shape == (3,)
        assert float(sample.gt_score.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    'given,expected',
    [((1, 5), (1,)), ((1, 3, 5), (1, 3)), (5, 1), (2, 2), ((5,), (1,))],
)
def test_top_k_needs_k_classes(given, expected, data):
    cfg = in1k()
    cfg.model.head.topk = given
    cfg.val_evaluator = [dict(type='Accuracy', topk=given)]
    use_custom_data(cfg, str(data))
    assert cfg.model.head.topk == cfg.val_evaluator[0].topk == expected


def test_metrics_that_count_classes_follow(data):
    cfg = in1k()
    cfg.val_evaluator = [dict(type='SingleLabelMetric', num_classes=1000)]
    use_custom_data(cfg, str(data))
    assert cfg.val_evaluator[0].num_classes == 3


@pytest.mark.parametrize('batch_size,drop_last', [(6, True), (7, False)])
def test_data_smaller_than_a_batch_still_makes_one(batch_size, drop_last, data):
    cfg = in1k()
    assert cfg.train_dataloader.drop_last
    cfg.train_dataloader.batch_size = batch_size
    use_custom_data(cfg, str(data))
    assert cfg.train_dataloader.drop_last == drop_last


def test_a_dataset_inside_a_wrapper_is_replaced(data):
    cfg = in1k()
    cfg.train_dataloader.dataset = dict(
        type='ClassBalancedDataset',
        oversample_thr=0.1,
        dataset=cfg.train_dataloader.dataset,
    )
    use_custom_data(cfg, str(data))
    assert len(build(cfg, 'train')) == 6


def test_a_class_without_validation_images_keeps_its_number(data):
    (data / 'val/bee/0.jpg').unlink()
    cfg = in1k()
    use_custom_data(cfg, str(data))
    dataset = build(cfg, 'val')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [0, 2]


def test_a_table_and_names_with_blanks_are_read(data):
    rows = []
    for split in ('train', 'val'):
        for path in sorted((data / split).glob('*/*')):
            name = f'{path.parent.name} {path.name}'
            path.rename(data / split / name)
            rows.append(f'{name};{path.parent.name};{split}')
            path.parent.rmdir() if not any(path.parent.iterdir()) else None
    (data / 'all.csv').write_text('\n'.join(['image;class;split', *rows]))
    cfg = in1k()
    use_custom_data(cfg, str(data))
    for split, count in (('train', 6), ('val', 3)):
        dataset = build(cfg, split)
        assert len(dataset) == count
        for i in range(count):
            info = dataset.get_data_info(i)
            name = Path(info['img_path']).name
            assert name.startswith(CLASSES[info['gt_label']])
            assert Path(info['img_path']).is_file()


def test_hidden_folders_never_reach_the_training(data):
    shutil.copytree(data / 'train/bee', data / 'train/bee/.ipynb_checkpoints')
    shutil.copytree(data / 'train/bee', data / 'train/.cache')
    cfg = in1k()
    use_custom_data(cfg, str(data))
    dataset = build(cfg, 'train')
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == CLASSES


def test_bytes_after_the_end_of_an_image_do_no_harm(data):
    path = data / 'val/cat/0.jpg'
    path.write_bytes(path.read_bytes() + bytes(5000))
    use_custom_data(in1k(), str(data))


def test_testing_needs_no_training_data(data):
    shutil.rmtree(data / 'train')
    cfg = in1k()
    use_custom_data(cfg, str(data), training=False)
    assert build(cfg, 'test').metainfo['classes'] == CLASSES
    assert cfg.model.head.num_classes == 3


@pytest.mark.parametrize('left', ['an empty folder', 'no folder'])
def test_testing_numbers_the_classes_as_training_did(left, data):
    shutil.rmtree(data / 'val/Ant')
    if left == 'an empty folder':
        (data / 'val/Ant').mkdir()
    (data / 'train/cat/0.jpg').write_text('damaged, but not needed')
    cfg = in1k()
    use_custom_data(cfg, str(data), training=False)
    assert build(cfg, 'test').get_data_info(0)['gt_label'] == 1
    assert build(cfg, 'test').metainfo['classes'] == CLASSES


def move(old, new):
    return lambda data: (data / old).rename(data / new)


def empty(name):
    return lambda data: [path.unlink() for path in (data / name).iterdir()]


def remove(*names):
    return lambda data: [shutil.rmtree(data / name) for name in names]


def cut_off(data):
    path = data / 'train/bee/0.jpg'
    Image.effect_noise((90, 80), 50).save(path)
    path.write_bytes(path.read_bytes()[:2000])


DAMAGES = {
    'no val': (
        move('val', 'held-out'),
        'data has no validation part; add one, or .* --val-fraction 0.2',
    ),
    'no train': (move('train', 'images'), 'must hold a folder train .*: images, val'),
    'no class folders': (
        lambda data: [shutil.rmtree(path) for path in (data / 'val').iterdir()],
        'val holds no folders; it must have one for each class',
    ),
    'a class only in val': (
        remove('train/bee'),
        "val has the class 'bee', but .*train does not; add training images",
    ),
    'one class': (
        remove('train/bee', 'train/cat', 'val/bee', 'val/cat'),
        "has the one class 'Ant'; a classifier tells at least two apart",
    ),
    'a class without images': (
        empty('train/bee'),
        r'train/bee has no images \(.jpg, .*; add some or remove the class',
    ),
    'no validation images': (
        lambda data: [empty(f'val/{name}')(data) for name in CLASSES],
        'data/val has no images',
    ),
    'an image that is none': (
        lambda data: (data / 'train/cat/0.jpg').write_text('<html>'),
        'train/cat/0.jpg cannot be read as an image .*; replace or remove it',
    ),
    'half an image': (
        cut_off,
        'train/bee/0.jpg cannot be read as an image .*truncated',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_folder_gets_one_sentence_that_names_the_place(damage, data):
    apply, message = DAMAGES[damage]
    apply(data)
    with pytest.raises(DataError, match=message) as caught:
        use_custom_data(in1k(), str(data))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'name,message',
    [
        ('resnet/resnet18_8xb16_cifar10.py', r'\(for CIFAR10\) has no LoadImageFrom'),
        ('vgg/vgg16_8xb16_voc.py', 'what the MultiLabelClsHead .*config learns'),
        ('mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py', 'a val_dataloader'),
        ('arcface/resnet50-arcface_8xb32_inshop.py', 'what the ImageToImageRetriever'),
    ],
)
def test_configs_that_learn_something_else_are_refused(name, message, data, tmp_path):
    cfg = mmpretrain_config(name, tmp_path)
    with pytest.raises(DataError, match=message):
        use_custom_data(cfg, str(data))


@pytest.mark.slow
def test_training_and_testing_through_the_tools(data):
    folder = data.parent
    (folder / 'config.py').write_text(CLASSIFICATION)

    def run(tool, *arguments):
        options = ('--data', 'data', '--work-dir', 'work')
        run_tool(tool, 'config.py', *arguments, *options, cwd=folder)

    run('train.py', '--cfg-options', 'train_cfg.max_epochs=1')
    shutil.rmtree(data / 'train')
    run('test.py', 'work/epoch_1.pth', '--show-dir', 'drawn', '--out', 'seen.pkl')
    metrics = [json.loads(p.read_text()) for p in (folder / 'work').glob('*/*.json')]
    assert any('accuracy/top1' in record for record in metrics)
    assert len(list((folder / 'drawn').rglob('*.png'))) == 3
    seen = pickle.loads((folder / 'seen.pkl').read_bytes())
    assert [sample['pred_score'].shape for sample in seen] == [(3,)] * 3
