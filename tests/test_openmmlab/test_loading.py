"""Images with more than 8 bits per value keep their grey levels in any library."""

from importlib import import_module

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from mmravlt.data import DataError
from mmravlt.openmmlab.loading import ScaleBitDepth
from mmravlt.tasks import use_custom_data
from mmravlt.tasks.config import bit_depth_of, keep_all_bits, longest_side

from ..tiny import CONFIGS

LOADERS = ['train_dataloader', 'val_dataloader', 'test_dataloader']


@pytest.fixture
def deep(tmp_path):
    """A 12-bit image and its path."""
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'deep.png'), values)
    return values, str(tmp_path / 'deep.png')


def load(steps, path, library='mmdet'):
    import_module(f'{library}.datasets')
    with DefaultScope.overwrite_default_scope(library):
        return Compose(steps)(dict(img_path=path))['img']


@pytest.mark.parametrize('library', CONFIGS)
def test_every_pipeline_of_a_config_keeps_all_bits(library, deep):
    values, path = deep
    cfg = Config.fromstring(CONFIGS[library], '.py')
    before = cfg.test_dataloader.dataset.pipeline[:1]
    assert len(np.unique(load(before, path, library))) == 16
    assert bit_depth_of(cfg) is None
    keep_all_bits(cfg, 12, LOADERS)
    assert bit_depth_of(cfg) == 12
    cfg = Config.fromstring(cfg.pretty_text, '.py')  # as a work dir keeps it
    for loader in LOADERS:
        steps = cfg[loader].dataset.pipeline[:2]
        image = load(steps, path, library)
        assert image.dtype == np.uint8
        assert np.abs(image - values / 4095 * 255).max() <= 0.501
        assert len(cfg[loader].dataset.pipeline) == len(
            set(map(str, cfg[loader].dataset.pipeline))
        )


def test_images_of_8_bits_are_read_as_before(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    path = str(tmp_path / 'a.jpg')
    cv2.imwrite(path, image)
    cfg = Config.fromstring(CONFIGS['mmseg'], '.py')
    before = load(cfg.test_dataloader.dataset.pipeline[:1], path)
    keep_all_bits(cfg, 12, LOADERS)
    after = load(cfg.test_dataloader.dataset.pipeline[:2], path)
    assert np.array_equal(before, after)


@pytest.mark.parametrize('bit_depth', [None, 16])
def test_a_config_stays_as_it_is_where_opencv_does_right(bit_depth):
    cfg = Config.fromstring(CONFIGS['mmdet'], '.py')
    text = cfg.pretty_text
    keep_all_bits(cfg, bit_depth, LOADERS)
    assert cfg.pretty_text == text


def test_steps_in_switched_and_nested_pipelines_are_found(deep):
    values, path = deep
    loader = dict(type='LoadImageFromFile', to_float32=True, imdecode_backend='pillow')
    dark = dict(type='LoadImageFromFile', color_type='grayscale')
    cfg = Config(
        dict(
            custom_hooks=[dict(type='Switch', switch_pipeline=[loader])],
            test_dataloader=dict(dataset=dict(dataset=dict(pipeline=[[dark]]))),
        )
    )
    keep_all_bits(cfg, 14, ['test_dataloader'])
    keep_all_bits(cfg, 12, ['test_dataloader'])
    image = load(cfg.custom_hooks[0].switch_pipeline, path)
    assert image.dtype == np.float32
    assert np.abs(image - values / 4095 * 255).max() <= 0.501
    image = load(cfg.test_dataloader.dataset.dataset.pipeline[0], path)
    assert image.shape == (20, 30)
    assert len(np.unique(image)) > 100


def test_a_pipeline_without_the_step_is_named():
    cfg = Config.fromstring(CONFIGS['mmseg'], '.py')
    cfg.val_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadOther')]))
    with pytest.raises(DataError, match='val_dataloader .* no LoadImageFromFile'):
        keep_all_bits(cfg, 12, LOADERS)


def test_pixels_of_another_type_are_refused():
    step = TRANSFORMS.build(dict(type='ScaleBitDepth', bit_depth=12))
    assert repr(step) == 'ScaleBitDepth(bit_depth=12, to_float32=False)'
    assert isinstance(step, ScaleBitDepth)
    with pytest.raises(TypeError, match='The pixels are float32'):
        step(dict(img=np.zeros((2, 2), np.float32)))


@pytest.fixture
def classified(tmp_path):
    """Deep images of two classes, of another depth in each split."""
    for name in ('train/a/0', 'train/b/1', 'val/a/0', 'val/b/1'):
        path = tmp_path / f'{name}.png'
        path.parent.mkdir(parents=True)
        cv2.imwrite(
            str(path), np.full((8, 8), 700 if 'val' in name else 1500, np.uint16)
        )
    return tmp_path


def test_a_folder_of_deep_images_changes_the_pipelines(classified):
    cfg = Config.fromstring(CONFIGS['mmpretrain'], '.py')
    prepared = use_custom_data(cfg, str(classified))
    assert prepared.bit_depth == bit_depth_of(cfg) == 12  # of both splits
    assert 'at most 1500: read as 12 bits' in prepared.notes[0]
    cfg = Config.fromstring(CONFIGS['mmpretrain'], '.py')
    assert use_custom_data(cfg, str(classified), bit_depth=16).bit_depth == 16
    assert bit_depth_of(cfg) is None
    cfg = Config.fromstring(CONFIGS['mmpretrain'], '.py')
    use_custom_data(cfg, str(classified), bit_depth=14, check=False)
    assert bit_depth_of(cfg) == 14


def test_a_strip_that_the_config_resizes_to_nothing_is_refused(classified):
    cfg = Config.fromstring(CONFIGS['mmpretrain'], '.py')
    strip = classified / 'val/b/strip.png'
    cv2.imwrite(str(strip), np.zeros((1, 600, 3), np.uint8))
    use_custom_data(cfg, str(classified))
    steps = cfg.val_dataloader.dataset.pipeline
    steps.insert(2, dict(type='Resize', scale=(96, 64), keep_ratio=True))
    with pytest.raises(DataError, match=f'{strip} is 600×1 pixels'):
        use_custom_data(cfg, str(classified))


@pytest.mark.parametrize(
    'step,longest',
    [
        (dict(type='Resize', scale=(1333, 800)), 1333),
        (dict(type='Resize', scale=(1333, 800), keep_ratio=False), None),
        (dict(type='RandomResize', scale=(64, 32), ratio_range=(0.5, 2)), 32),
        (dict(type='RandomResize', scale=[(64, 32), (96, 32)]), 64),
        (dict(type='RandomChoiceResize', scales=[(9, 480), (70, 80)]), 80),
        (dict(type='RandomCrop', scale=(1, 1)), None),
    ],
)
def test_the_least_longer_side_of_a_pipeline_is_found(step, longest):
    step = dict(dict(keep_ratio=True), **step)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Some', transforms=[[step]])]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    assert longest_side(cfg, ['test_dataloader']) == longest
