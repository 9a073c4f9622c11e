"""Segments of a panoptic segmentor stand beside those that are labelled."""

import numpy as np
import torch
from mmengine.structures import PixelData

from mmravlt.data.maps import IGNORED

from .evaluations import fake_runner, feed, hook_of, run_test


def first_class(sample, rng):
    """One object of the first class on the left, nothing on the right."""
    ids = torch.full((1, *sample.ori_shape), 6)  # six classes: this is none
    ids[..., :20] = 1000
    sample.pred_panoptic_seg = PixelData(sem_seg=ids)


def test_a_report_is_a_picture_of_samples(config_of, tmp_path, figures):
    _, hook = run_test(config_of('segments'), first_class, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'samples.png'}
    assert hook.report.text() == ''
    titles = [axes.get_title() for axes in figures[-1].axes]
    assert titles == ['00000.png', 'prediction', '00001.png', 'prediction']


def test_maps_hold_classes_and_edges(config_of, tmp_path):
    cfg = config_of('segments')
    runner, hook = fake_runner(cfg, tmp_path), hook_of(cfg)
    hook.before_test(runner)
    feed(runner, first_class)
    maps = hook.report.found[0]
    assert set(np.unique(maps.guess)) == {0, IGNORED}
    assert (maps.guess[:, :20] == 0).all()
    truth, guess = maps.edges
    assert (guess.any(0) == (np.arange(64) == 19)).all()
    assert set(np.unique(maps.truth[0])) == {4}  # the sky
    assert set(np.unique(maps.truth[-1])) == {5}  # the floor
    assert (maps.truth[32] == IGNORED).any()  # belongs to nothing
    assert truth[31].any() and not truth[0].any()
