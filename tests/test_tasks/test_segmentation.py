"""`--data DIR` points a segmentation config at images and maps of class indices."""

import importlib.util
import json
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
from ..tiny import SEGMENTATION

CLASSES = ('road', 'tree', 'sky')


def upernet():
    return Config.fromfile(config_path('mmseg/upernet_ravlt_s_2x.py'))


def mmseg_config(name):
    package = Path(importlib.util.find_spec('mmseg').origin).parent
    return Config.fromfile(package / '.mim/configs' / name)


def save_map(path, labels, mode='L'):
    image = Image.fromarray(np.asarray(labels, np.uint8))
    if mode == 'P':
        image.putpalette([7 * i % 256 for i in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_data(folder, splits=('train', 'val'), first=0):
    """Three 48×36 images per split, in three stripes from class ``first`` on."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.uint8) + first, 12)[:, None]
    labels = np.tile(labels, (1, 48))
    for split in splits:
        for i in range(3):
            image = folder / f'images/{split}/{i}.jpg'
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 50, (36, 48, 3)) + 60 * labels[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(image)
            save_map(folder / f'annotations/{split}/{i}.png', labels)
    if first == 0:
        (folder / 'classes.txt').write_text('\n'.join(CLASSES) + '\n\n')


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path / 'data')
    return tmp_path / 'data'


def build(cfg, split):
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def label_map(dataset, index):
    return dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()


def values(node, key):
    """All values of ``key`` in a nest of dicts and lists."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from values(child, key)


def test_classes_heads_data_and_labels_follow_the_folder(data):
    cfg = upernet()
    use_custom_data(cfg, str(data))
    assert list(values(cfg.model, 'num_classes')) == [3, 3]
    for split, folder in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = build(cfg, split)
        assert type(dataset).__name__ == 'ListedMaps'
        assert len(dataset) == 3
        assert dataset.metainfo['classes'] == CLASSES
        assert len(dataset.metainfo['palette']) == 3
        assert not dataset.metainfo['reduce_zero_label']
        paths = [dataset.get_data_info(i)['img_path'] for i in range(3)]
        assert paths == [str(data / f'images/{folder}/{i}.jpg') for i in range(3)]
        if split != 'train':
            expected = np.asarray(Image.open(data / 'annotations/val/1.png'))
            np.testing.assert_array_equal(label_map(dataset, 1), expected)
        else:
            assert set(np.unique(label_map(dataset, 1))) <= {0, 1, 2, 255}
    assert cfg.val_evaluator.type == 'IoUMetric'
    assert cfg.train_cfg.max_iters == 160000


@pytest.mark.parametrize(
    'name,heads',
    [
        ('upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', 2),
        ('pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py', 2),  # has an ann_file
        ('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py', 3),  # a list of heads
        ('point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py', 2),  # another list
        ('unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', 2),  # in a RepeatDataset
        ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', 3),
    ],
)
def test_configs_of_mmseg_follow(name, heads, data):
    cfg = mmseg_config(name)
    if 'voc' in name:
        with pytest.raises(DataError, match='replace the 2 datasets of a ConcatData'):
            use_custom_data(cfg, str(data))
        cfg.train_dataloader.dataset = cfg.val_dataloader.dataset
    use_custom_data(cfg, str(data))
    assert list(values(cfg.model, 'num_classes')).count(3) == heads
    for split in ('train', 'val', 'test'):
        dataset = build(cfg, split)
        assert len(dataset) == 3 * cfg[f'{split}_dataloader'].dataset.get('times', 1)
        assert dataset.metainfo['classes'] == CLASSES
    np.testing.assert_array_equal(np.unique(label_map(build(cfg, 'val'), 0)), [0, 1, 2])


def test_the_edge_head_of_stdc_still_tells_edges(data):
    cfg = mmseg_config('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py')
    use_custom_data(cfg, str(data))
    heads = {head.type: head.num_classes for head in cfg.model.auxiliary_head}
    assert heads == dict(FCNHead=3, STDCHead=2)


def test_equal_weights_of_classes_follow_and_others_are_refused(data):
    cfg = mmseg_config('mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py')
    use_custom_data(cfg, str(data))
    assert cfg.model.decode_head.num_classes == 3
    assert cfg.model.decode_head.loss_cls.class_weight == [1.0, 1.0, 1.0, 0.1]
    cfg = mmseg_config('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py')
    with pytest.raises(DataError, match='weighs its 19 classes one by one.*data has 3'):
        use_custom_data(cfg, str(data))


def test_a_head_with_one_channel_takes_two_classes_only(data):
    cfg = upernet()
    cfg.model.decode_head.update(num_classes=2, out_channels=1)
    with pytest.raises(DataError, match='UPerHead.*by one channel.*data names 3;'):
        use_custom_data(cfg, str(data))
    for path in data.glob('annotations/*/*.png'):
        save_map(path, np.eye(36, 48))
    (data / 'classes.txt').write_text('background\nline')
    use_custom_data(cfg, str(data))
    assert cfg.model.decode_head.num_classes == 2


def test_metrics_of_one_dataset_become_the_mean_iou(data):
    cfg = upernet()
    cfg.test_evaluator = dict(type='CityscapesMetric', output_dir='x')
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='CityscapesMetric')]
    use_custom_data(cfg, str(data))
    assert cfg.test_evaluator == dict(type='IoUMetric', iou_metrics=['mIoU'])
    assert [metric.type for metric in cfg.val_evaluator] == ['IoUMetric']


@pytest.mark.parametrize('mode', ['P', '1', 'I;16'])
def test_palette_one_bit_and_16_bit_maps_are_read_as_indices(mode, data):
    labels = np.zeros((36, 48), np.uint8)
    labels[:10] = 1
    path = data / 'annotations/val/0.png'
    if mode == '1':
        Image.fromarray(labels.astype(bool)).save(path)
    elif mode == 'I;16':
        Image.fromarray(labels.astype(np.uint16)).save(path)
    else:
        save_map(path, labels, mode)
    with Image.open(path) as image:
        assert image.mode == mode
    cfg = upernet()
    for step in cfg.val_dataloader.dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.imdecode_backend = 'cv2'  # would take the palette's colours
    use_custom_data(cfg, str(data))
    np.testing.assert_array_equal(label_map(build(cfg, 'val'), 0), labels)


def test_suffixes_may_be_mixed_and_images_lie_deeper(data):
    images = data / 'images/val'
    Image.open(images / '0.jpg').save(images / '0.PNG')
    (images / '0.jpg').unlink()
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        (data / f'{kind}/val/city').mkdir()
        file = data / f'{kind}/val/1.{suffix}'
        file.rename(data / f'{kind}/val/city/1.v2.{suffix}')
    cfg = upernet()
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    use_custom_data(cfg, str(data))
    dataset = build(cfg, 'val')
    paths = {dataset[i]['data_samples'].img_path for i in range(len(dataset))}
    names = {str(Path(path).relative_to(images)) for path in paths}
    assert names == {'0.PNG', '2.jpg', 'city/1.v2.jpg'}
    assert dataset.metainfo['classes'] == CLASSES
    assert all(set(np.unique(label_map(dataset, i))) == {0, 1, 2} for i in range(3))
    assert len(build(cfg, 'train')) == 6


def test_a_photo_taken_upright_has_the_size_of_its_map(data):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = data / 'images/val/0.jpg'
    lying = Image.open(path).transpose(Image.Transpose.ROTATE_90)
    lying.save(path, exif=exif)
    cfg = upernet()
    use_custom_data(cfg, str(data))
    sample = build(cfg, 'val')[0]['data_samples']
    assert sample.ori_shape == (36, 48)


def test_maps_in_colour_reach_the_training_as_indices(data):
    colours = np.zeros((256, 3), np.uint8)
    colours[:3] = (128, 64, 128), (0, 128, 0), (70, 130, 180)
    (data / 'class_dict.csv').write_text(
        'name,r,g,b\nroad,128,64,128\ntree,0,128,0\nsky,70,130,180\n'
    )
    (data / 'classes.txt').unlink()
    expected = np.asarray(Image.open(data / 'annotations/val/1.png'))
    for path in data.glob('annotations/*/*.png'):
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    cfg = mmseg_config('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py')
    prepared = use_custom_data(cfg, str(data))
    assert prepared.layout == 'colour maps'
    dataset = build(cfg, 'val')
    assert dataset.metainfo['classes'] == CLASSES
    np.testing.assert_array_equal(label_map(dataset, 1), expected)
    assert set(np.unique(label_map(build(cfg, 'train'), 1))) <= {0, 1, 2, 255}


def test_hidden_folders_never_reach_the_training(data):
    hidden = data / 'images/train/.ipynb_checkpoints'
    shutil.copytree(data / 'images/train', hidden)
    cfg = upernet()
    use_custom_data(cfg, str(data))
    assert len(build(cfg, 'train')) == 3


def test_testing_needs_no_training_data(data):
    shutil.rmtree(data / 'images/train')
    shutil.rmtree(data / 'annotations/train')
    cfg = upernet()
    use_custom_data(cfg, str(data), training=False)
    assert len(build(cfg, 'test')) == 3
    assert cfg.model.decode_head.num_classes == 3


@pytest.mark.parametrize('training', [True, False])
def test_a_copy_of_ade20k_keeps_its_classes_and_its_zero(training, tmp_path):
    splits = ('training', 'validation') if training else ('validation',)
    write_data(tmp_path, splits, first=149)  # 149, 150 and
    for path in [*tmp_path.glob('*/*/?.*')]:
        path.rename(path.with_name(f'ADE_{path.name}'))
    for path in tmp_path.glob('annotations/*/*.png'):
        labels = np.asarray(Image.open(path))
        save_map(path, np.where(labels == 151, 0, labels))  # "other"
    cfg = upernet()
    use_custom_data(cfg, str(tmp_path), training)
    assert list(values(cfg.model, 'num_classes')) == [150, 150]
    dataset = build(cfg, 'test')
    assert len(dataset.metainfo['classes']) == 150
    assert dataset.metainfo['palette'][:2] == [[120, 120, 120], [180, 120, 120]]
    assert dataset[0]['data_samples'].img_path.startswith(str(tmp_path))
    np.testing.assert_array_equal(np.unique(label_map(dataset, 0)), [148, 149, 255])
    if training:
        assert len(build(cfg, 'train')) == 3
    else:
        with pytest.raises(DataError, match='a folder training; found there: valid'):
            use_custom_data(upernet(), str(tmp_path))
    cfg = mmseg_config('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py')
    use_custom_data(cfg, str(tmp_path), training)
    assert list(values(cfg.model, 'num_classes')) == [150] * 3
    labels = label_map(build(cfg, 'test'), 0)
    np.testing.assert_array_equal(np.unique(labels), [148, 149, 255])


def test_configs_that_learn_something_else_are_refused(data):
    cfg = mmseg_config('vpd/vpd_sd_4xb8-25k_nyu-512x512.py')
    with pytest.raises(DataError, match='pipeline of this config has LoadDepthAnn'):
        use_custom_data(cfg, str(data))
    cfg = upernet()
    cfg.model = dict(type='EncoderDecoder', decode_head=dict(type='MyHead'))
    with pytest.raises(DataError, match='nothing in the EncoderDecoder .*num_classes'):
        use_custom_data(cfg, str(data))


@pytest.mark.slow
def test_training_and_testing_through_the_tools(data):
    folder = data.parent
    (folder / 'config.py').write_text(SEGMENTATION)

    def run(tool, *arguments):
        options = ('--data', 'data', '--work-dir', 'work')
        run_tool(tool, 'config.py', *arguments, *options, cwd=folder)

    run('train.py', '--cfg-options', 'train_cfg.max_epochs=1')
    shutil.rmtree(data / 'images/train')
    run('test.py', 'work/epoch_1.pth', '--show-dir', 'drawn', '--out', 'seen.pkl')
    metrics = [json.loads(p.read_text()) for p in (folder / 'work').glob('*/*.json')]
    assert any('mIoU' in record for record in metrics)
    assert len(list((folder / 'drawn').rglob('*.png'))) == 3
    assert (folder / 'seen.pkl').is_file()
