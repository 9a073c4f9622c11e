"""A preview shows training images as their pipeline makes them, in true colours."""

import random

import cv2
import numpy as np
import pytest
import torch

from mmravlt.reports.base import ReportError
from mmravlt.reports.preview import draw_preview


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def image_of(axes):
    return np.asarray(axes.images[0].get_array())


def words_of(figure):
    """All that is written outside of panels."""
    return [text.get_text() for part in figure.subfigs for text in part.texts]


def keep_as_it_is(cfg, *steps):
    """A pipeline that changes no pixel."""
    kept = ('LoadImageFromFile', 'LoadAnnotations')
    dataset = cfg.train_dataloader.dataset
    last = dataset.pipeline[-1]
    first = [step for step in dataset.pipeline if step['type'] in kept]
    dataset.pipeline = [*first, *steps, last]


@pytest.mark.parametrize('kind', ['boxes', 'masks'])
def test_objects_are_drawn(kind, config_of, tmp_path, figures):
    draw_preview(config_of(kind), 2, tmp_path / 'preview.png')
    assert (tmp_path / 'preview.png').read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in tmp_path.iterdir()] == ['preview.png']
    assert figures[0].get_suptitle().startswith('2 of 3 training images')
    for axes in panels(figures[0]):
        name, size = axes.get_title().split('\n')
        assert name.endswith('.png')
        assert size == '800×800 pixels'  # the shorter side of 64×64 is to be 800
        shapes = {type(patch).__name__ for patch in axes.patches}
        assert shapes == {'Polygon' if kind == 'masks' else 'Rectangle'}
    (steps,) = words_of(figures[0])
    assert 'Resize(scale=(1333,800), keep_ratio=True) → RandomFlip(prob=0.5)' in steps


def test_maps_are_drawn_and_padding_is_ignored(config_of, tmp_path, figures):
    cfg = config_of('maps')
    keep_as_it_is(cfg)
    cfg.model.data_preprocessor.size = (64, 96)
    draw_preview(cfg, 1, tmp_path / 'preview.png')
    (axes,) = panels(figures[0])
    assert axes.get_title().split('\n')[1] == '48×40 pixels, padded to 96×64'
    image = image_of(axes)
    assert image.shape == (64, 96, 3)
    assert (image[:4, :48] == (200, 200, 0)).all()  # ignored: as in the file, RGB
    assert not (image[4:40, :48] == (200, 200, 0)).all(-1).any()
    assert np.unique(image[40:]).size == np.unique(image[:, 48:]).size == 1


@pytest.mark.parametrize('to_rgb', [True, False])
def test_colours_are_true(to_rgb, config_of, tmp_path, figures):
    cfg = config_of('classes')
    keep_as_it_is(cfg)
    cfg.data_preprocessor.to_rgb = to_rgb  # else the model gets BGR, as it is read
    draw_preview(cfg, 13, tmp_path / 'preview.png')
    shown = panels(figures[0])
    assert len(shown) == 13
    assert all((image_of(axes)[..., 0] == 250).all() for axes in shown)
    assert all((image_of(axes)[..., 2] == 0).all() for axes in shown)
    names = [axes.get_title().split('\n')[1] for axes in shown]
    assert names == ['ant'] * 4 + ['bee'] * 2 + [r'cost in \$'] * 7


def test_images_that_a_step_made_rgb_are_not_turned(config_of, tmp_path, figures):
    cfg = config_of('classes')
    keep_as_it_is(cfg, dict(type='NumpyToPIL', to_rgb=True))
    cfg.data_preprocessor.to_rgb = False
    draw_preview(cfg, 1, tmp_path / 'preview.png')
    assert (image_of(panels(figures[0])[0])[..., 0] == 250).all()


def test_what_the_model_does_to_a_batch_is_said(config_of, tmp_path, figures):
    draw_preview(config_of('classes'), 2, tmp_path / 'preview.png')
    title = figures[0].get_suptitle()
    assert 'Mixup and CutMix come later, in the model, and are not shown' in title


@pytest.mark.parametrize('kind', ['boxes', 'maps', 'classes'])
def test_each_image_of_a_repeated_dataset_comes_once(
    kind, config_of, tmp_path, figures
):
    cfg = config_of(kind)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=4, dataset=inner)
    draw_preview(cfg, 3, tmp_path / 'preview.png')
    names = [axes.get_title() for axes in panels(figures[0])]
    assert len(set(names)) == 3
    (steps,) = words_of(figures[0])
    assert steps.startswith('LoadImageFromFile')


def test_mosaics_are_drawn(config_of, tmp_path, figures):
    cfg = config_of('boxes')
    inner = cfg.train_dataloader.dataset
    *first, last = inner.pipeline
    inner.pipeline = first[:2]
    cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=inner,
        pipeline=[dict(type='Mosaic', img_scale=(64, 64)), last],
    )
    draw_preview(cfg, 2, tmp_path / 'preview.png')
    for axes in panels(figures[0]):
        assert image_of(axes).shape == (128, 128, 3)
    assert 'LoadAnnotations(with_bbox=True) → Mosaic(' in words_of(figures[0])[0]


def test_things_and_stuff_are_drawn(config_of, tmp_path, figures):
    cfg = config_of('segments')
    draw_preview(cfg, 1, tmp_path / 'preview.png')
    (axes,) = panels(figures[0])
    assert axes.patches
    legend = figures[0].subfigs[0].legends[0]
    assert {'sky', 'floor'} <= {text.get_text() for text in legend.get_texts()}


def test_random_numbers_of_a_training_stay_the_same(config_of, tmp_path):
    def numbers():
        return random.random(), np.random.random(), float(torch.rand(()))

    cfg = config_of('classes')
    seed_all(5)
    expected = numbers()
    seed_all(5)
    draw_preview(cfg, 2, tmp_path / 'a.png')
    assert numbers() == expected
    draw_preview(cfg, 2, tmp_path / 'b.png')
    a, b = (cv2.imread(str(tmp_path / name)) for name in ('a.png', 'b.png'))
    assert np.abs(a.astype(int) - b).mean() < 0.1


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_normalised_images_become_visible(config_of, tmp_path, figures):
    cfg = config_of('classes')
    normalise = dict(type='Normalize', mean=[100.0] * 3, std=[50.0] * 3, to_rgb=False)
    keep_as_it_is(cfg, normalise)
    draw_preview(cfg, 1, tmp_path / 'preview.png')
    image = image_of(panels(figures[0])[0])
    assert (image[..., 0] == 255).all() and (image[..., 2] == 0).all()


def test_several_views_of_an_image_are_refused(config_of, tmp_path):
    cfg = config_of('classes')
    views = dict(type='MultiView', num_views=2, transforms=[[]])
    keep_as_it_is(cfg, views)
    with pytest.raises(ReportError, match='one image per sample, but .* lists'):
        draw_preview(cfg, 1, tmp_path / 'preview.png')
    assert not list(tmp_path.iterdir())
