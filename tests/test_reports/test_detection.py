"""The table of a detector agrees with its scores, and its pictures show objects."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmravlt.reports.precision import _best

from .evaluations import config, noisy_objects, read_rows, run_test


def nothing(sample, rng):
    sample.pred_instances = InstanceData(
        bboxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.long),
        scores=torch.zeros(0),
    )


def mean(rows, column):
    return np.mean([float(row[column]) for row in rows if row[column]])


@pytest.mark.parametrize('kind', ['boxes', 'masks'])
def test_classes_have_the_ap_whose_mean_is_logged(kind, config_of, tmp_path):
    scores, hook = run_test(config_of(kind), noisy_objects, tmp_path)
    rows = read_rows(tmp_path)
    assert 0.1 < scores['coco/bbox_mAP'] < 1
    for part, logged in (('box', 'bbox'), ('mask', 'segm'))[: 1 + (kind == 'masks')]:
        for column, name in (('AP', 'mAP'), ('AP50', 'mAP_50')):
            expected = scores[f'coco/{logged}_{name}']  # rounded to 3 digits
            found = mean(rows, f'{part}_{column}')  # to 4
            assert found == pytest.approx(expected, abs=6e-4)
    assert ('mask_AP' in rows[0]) == (kind == 'masks')
    assert hook.report.text().splitlines()[0].split() == list(rows[0])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'per_class.csv', 'pr_curves.png', 'samples.png'}


def test_a_class_without_objects_has_no_scores(config_of, tmp_path):
    _, hook = run_test(config_of('boxes'), noisy_objects, tmp_path)
    rows = {row['class']: row for row in read_rows(tmp_path)}
    assert list(rows) == ['circle', 'rectangle', 'triangle', 'star']
    assert rows['triangle'].pop('class')
    assert rows['triangle'].pop('objects') == '0'
    assert set(rows['triangle'].values()) == {''}
    assert hook.report.text().splitlines()[-1].split() == ['triangle', '0', *'-----']


def test_crowds_are_neither_counted_nor_drawn(config_of, tmp_path, figures, shapes):
    cfg = config_of('masks')
    _, hook = run_test(cfg, noisy_objects, tmp_path)
    truth = hook.report.coco._coco_api.dataset['annotations']
    rows = read_rows(tmp_path)
    assert sum(int(row['objects']) for row in rows) == len(truth) - 1
    titles = [axes.get_title() for axes in figures[-1].axes]
    drawn = [int(t.split(': ')[1].split()[0]) for t in titles if '.png: ' in t]
    assert sum(drawn) == len(truth) - 1


def test_a_detector_that_finds_nothing_has_ap_0(config_of, tmp_path):
    run_test(config_of('boxes'), nothing, tmp_path)
    rows = read_rows(tmp_path)
    assert {row['box_AP'] for row in rows} == {'0.0', ''}
    assert {row['box_precision'] for row in rows} == {''}
    assert (tmp_path / 'samples.png').exists()


def image(scores, hits, objects, ignored=None):
    """What COCOeval finds in one image at one threshold."""
    return dict(
        gtIgnore=np.array([0] * objects + [1]),
        dtScores=list(scores),
        dtMatches=np.array([hits], float),
        dtIgnore=np.array([ignored or [0] * len(scores)]),
    )


def test_the_threshold_of_the_best_f1_is_that_of_trying_all():
    rng = np.random.default_rng(0)
    scores = rng.random((5, 9)).round(2)
    hits = (rng.random((5, 9)) < scores).astype(int)
    images = [image(s, h, int(h.sum()) + 1) for s, h in zip(scores, hits, strict=True)]
    recall, precision, threshold = _best(images, 0)
    objects = hits.sum() + 5

    def f1(t):
        kept = scores >= t
        return 2 * hits[kept].sum() / (kept.sum() + objects)

    assert f1(threshold) == max(map(f1, scores.ravel()))
    kept = scores >= threshold
    assert recall == pytest.approx(hits[kept].sum() / objects)
    assert precision == pytest.approx(hits[kept].sum() / kept.sum())


def test_a_threshold_does_not_part_equal_scores():
    # the best of three equal scores alone would look perfect
    recall, precision, threshold = _best([image([0.5] * 3, [1, 0, 0], 1)], 0)
    assert (recall, threshold) == (1, 0.5)
    assert precision == pytest.approx(1 / 3)


def test_what_matches_ignored_objects_does_not_count():
    found = _best([image([0.9, 0.8], [1, 1], 1, ignored=[1, 0])], 0)
    assert found == (1, 1, 0.8)


def test_curves_are_told_apart_without_their_colours(config_of, tmp_path, figures):
    run_test(config_of('masks'), noisy_objects, tmp_path)
    panels = figures[0].axes
    assert [axes.get_title() for axes in panels] == ['boxes', 'masks']
    for axes in panels:
        styles = [(x.get_linestyle(), x.get_color()) for x in axes.lines]
        assert len(styles) == 4  # three classes and their mean
        assert len({style for style, _ in styles[:3]}) == 3
        assert styles[3] == ('-', 'black')


def test_classes_keep_their_names_where_categories_are_in_another_order(
    shapes, tmp_path
):
    folder = shutil.copytree(shapes, tmp_path / 'data')
    for path in folder.glob('annotations/*.json'):
        content = json.loads(path.read_text())
        content['categories'].reverse()
        path.write_text(json.dumps(content))
    cfg = config('boxes', folder)
    circle = cfg.test_dataloader.dataset.metainfo['classes'].index('circle')
    assert circle == 3

    def circles(sample, rng):
        truth = sample.gt_instances[sample.gt_instances.labels == circle]
        scores = torch.ones(len(truth))
        boxes = truth.bboxes.tensor
        sample.pred_instances = InstanceData(
            bboxes=boxes, labels=truth.labels, scores=scores
        )

    (tmp_path / 'work').mkdir()
    run_test(cfg, circles, tmp_path / 'work')
    rows = {row['class']: row for row in read_rows(tmp_path / 'work')}
    assert list(rows) == ['star', 'triangle', 'rectangle', 'circle']
    aps = {name: row['box_AP'] for name, row in rows.items()}
    assert aps == {'star': '0.0', 'triangle': '', 'rectangle': '0.0', 'circle': '1.0'}
    assert rows['circle']['box_recall'] == '1.0'
