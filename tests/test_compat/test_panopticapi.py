"""What mmdet needs of panopticapi, where that is not installed."""

import sys
from types import ModuleType

import numpy as np
import pytest

from mmravlt.compat.panopticapi import PQStat, id2rgb, install, rgb2id

CATEGORIES = {
    7: dict(id=7, isthing=1),
    8: dict(id=8, isthing=1),
    9: dict(id=9, isthing=0),
}


def test_colours_are_ids_in_base_256():
    ids = np.array([[0, 1, 255], [256, 65_536, 256**3 - 1]])
    colours = id2rgb(ids)
    assert colours.dtype == np.uint8
    assert colours[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    assert (rgb2id(colours) == ids).all()


def test_panoptic_quality_is_that_of_the_paper():
    first, second = PQStat(), PQStat()
    first[7].tp += 1
    first[7].iou += 0.8
    first[7].fp += 1
    second[7].tp += 1
    second[7].iou += 0.6
    second[7].fn += 2
    second[9].fn += 1
    first += second
    # two matched with IoU 0.8 and 0.6, one false and two missed
    things, per_class = first.pq_average(CATEGORIES, isthing=True)
    assert things['pq'] == pytest.approx(1.4 / 3.5)
    assert things['sq'] == pytest.approx(0.7)
    assert things['rq'] == pytest.approx(2 / 3.5)
    assert things['n'] == 1  # there was no segment of class 8
    assert per_class[8] == dict(pq=0, sq=0, rq=0)
    stuff, _ = first.pq_average(CATEGORIES, isthing=False)
    assert (stuff['pq'], stuff['n']) == (0, 1)
    both, _ = first.pq_average(CATEGORIES, isthing=None)
    assert both['pq'] == pytest.approx(0.7 / 3.5)


def test_without_any_segment_there_is_no_quality():
    means, _ = PQStat().pq_average(CATEGORIES, isthing=None)
    assert np.isnan(means['pq']) and means['n'] == 0


def test_an_installed_one_is_left_alone(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith('panopticapi')]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / 'panopticapi').mkdir()
    (tmp_path / 'panopticapi/__init__.py').write_text("origin = 'installed'")
    monkeypatch.syspath_prepend(str(tmp_path))
    install()
    import panopticapi

    assert isinstance(panopticapi, ModuleType)
    assert panopticapi.origin == 'installed'
    monkeypatch.delitem(sys.modules, 'panopticapi')
