"""The table of a segmentor agrees with its scores; ignored pixels stay ignored."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData

from mmravlt.pictures import colour, tinted
from mmravlt.reports.segmentation import class_rows

from .evaluations import noisy_map, read_rows, run_test


def test_classes_have_the_iou_whose_mean_is_logged(config_of, tmp_path):
    scores, hook = run_test(config_of('maps'), noisy_map, tmp_path)
    rows = read_rows(tmp_path)
    assert 10 < scores['mIoU'] < 90
    for column, name in (('IoU', 'mIoU'), ('accuracy', 'mAcc')):
        mean = np.mean([float(row[column]) for row in rows])
        assert mean == pytest.approx(float(scores[name]), abs=0.011)  # 2 digits each
    assert sum(int(row['pixels']) for row in rows) == 3 * 36 * 48  # not the ignored
    worst = min(rows, key=lambda row: float(row['IoU']))
    assert hook.report.text().splitlines()[1].startswith(worst['class'])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'per_class.csv', 'confusion.png', 'samples.png'}


def test_a_matrix_has_the_truth_in_rows(config_of, tmp_path, figures):
    def all_road(sample, rng):
        sample.pred_sem_seg = PixelData(data=torch.zeros_like(sample.gt_sem_seg.data))

    run_test(config_of('maps'), all_road, tmp_path)
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('prediction', 'truth')
    cells = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(cells, [[100, 0, 0]] * 3)
    assert [text.get_text() for text in axes.texts] == ['100', '0', '0'] * 3
    assert [label.get_text() for label in axes.get_yticklabels()][0] == 'road'


def test_labels_that_no_class_has_count_as_in_mmseg():
    counts = np.array([[6, 2], [0, 4], [3, 1]])  # the last row is of other labels
    road, tree = class_rows(counts, ['road', 'tree'])
    assert (road['pixels'], tree['pixels']) == (8, 4)
    assert road['IoU'] == pytest.approx(100 * 6 / 11, abs=0.01)
    assert tree['precision'] == pytest.approx(100 * 4 / 7, abs=0.01)


def test_ignored_pixels_look_as_in_the_image():
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = tinted(image, np.array([[0, 255], [255, 1]]))
    assert (drawn[0, 1] == 100).all() and (drawn[1, 0] == 100).all()
    expected = 45 + 0.55 * 255 * np.array(colour(1))
    np.testing.assert_allclose(drawn[1, 1], expected, atol=1)


def test_each_image_is_drawn_beside_its_prediction(config_of, tmp_path, figures):
    run_test(config_of('maps'), noisy_map, tmp_path)
    titles = [axes.get_title() for axes in figures[-1].axes]
    titles = [title for title in titles if title]
    assert titles == ['0.png', 'prediction', '1.png', 'prediction', '2.png', titles[1]]
    truth, guess = (axes.images[0].get_array() for axes in figures[-1].axes[:2])
    assert (truth[:4] == (200, 200, 0)).all()  # ignored
    assert not (guess[:4] == (200, 200, 0)).all(-1).any()


def test_more_classes_than_names_are_told_instead_of_counted_as_others(
    config_of, tmp_path, caplog
):
    def fourth(sample, rng):
        data = torch.full_like(sample.gt_sem_seg.data, 3)
        sample.pred_sem_seg = PixelData(data=data)

    run_test(config_of('maps'), fourth, tmp_path)
    assert not list(tmp_path.iterdir())
    assert 'more classes apart than the 3 that the data names' in caplog.text
