"""The table of a classifier agrees with its scores, and wrong images come first."""

import numpy as np
import pytest
import torch

from mmravlt.reports.confusion import draw_confusion

from .evaluations import noisy_class, read_rows, run_test


def test_recall_of_all_images_is_what_is_logged(config_of, tmp_path):
    scores, hook = run_test(config_of('classes'), noisy_class(3), tmp_path, 1)
    rows = read_rows(tmp_path)
    assert 0 < scores['accuracy/top1'] < 100
    images = [int(row['images']) for row in rows]
    assert images == [4, 2, 7]
    recall = np.average([float(row['recall']) for row in rows], weights=images)
    assert recall == pytest.approx(scores['accuracy/top1'], abs=0.006)
    for row in rows:
        precision, recall, f1 = (float(row[c]) for c in ('precision', 'recall', 'F1'))
        expected = 2 * precision * recall / (precision + recall)
        assert f1 == pytest.approx(expected, abs=0.02)
    assert 'cost in $' in hook.report.text()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'per_class.csv', 'confusion.png', 'samples.png'}


def test_wrong_images_come_first_and_all_are_marked(config_of, tmp_path, figures):
    scores, _ = run_test(config_of('classes'), noisy_class(3), tmp_path, 1)
    marks = [axes.get_title().split('\n')[2][0] for axes in figures[-1].axes]
    wrong = round(13 * (1 - scores['accuracy/top1'] / 100))
    assert 0 < wrong < 8
    assert marks == ['✗'] * wrong + ['✓'] * (12 - wrong)
    assert (figures[-1].axes[0].images[0].get_array()[..., 0] == 250).all()  # red


def test_a_class_that_is_never_predicted_has_no_precision(config_of, tmp_path):
    def always_ant(sample, rng):
        noisy_class(3)(sample, rng)
        sample.set_pred_score(sample.pred_score.new_tensor([0.8, 0.1, 0.1]))

    run_test(config_of('classes'), always_ant, tmp_path)
    bee = read_rows(tmp_path)[1]
    assert (bee['precision'], bee['recall'], bee['F1']) == ('', '0.0', '0.0')


def test_of_many_classes_the_most_confused_are_drawn(figures):
    counts = np.diag(np.full(40, 10))
    counts[33, 7] = counts[7, 33] = 5
    draw_confusion(counts, [f'class {i}' for i in range(40)], 'test')
    axes = figures[-1].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 25
    assert {'class 7', 'class 33'} <= set(names)
    assert 'the 25 of 40 classes' in figures[-1].get_suptitle()
    assert not axes.texts


def test_a_class_without_images_has_an_empty_row(figures):
    draw_confusion(np.array([[3, 1], [0, 0]]), ['ant', 'bee'], 'test')
    words = [text.get_text() for text in figures[-1].axes[0].texts]
    assert words == ['75', '25', 'none']


def test_of_many_classes_those_that_never_occur_are_left_out(figures):
    counts = np.zeros((150, 150), int)
    counts[7, [7, 90]] = 3, 1
    draw_confusion(counts, [f'class {i}' for i in range(150)], 'test')
    (axes, _) = figures[-1].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        'class 7',
        'class 90',
    ]
    assert 'the 2 of 150 classes' in figures[-1].get_suptitle()


def test_more_classes_than_names_are_told_instead_of_counted_as_others(
    config_of, tmp_path, caplog
):
    def fourth(sample, rng):
        scores = torch.tensor([0.1, 0.1, 0.1, 0.7])
        sample.set_pred_score(scores).set_pred_label(3)

    run_test(config_of('classes'), fourth, tmp_path)
    assert not list(tmp_path.iterdir())
    assert 'more classes apart than the 3 that the data names' in caplog.text
