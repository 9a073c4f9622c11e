"""All pictures share one style."""

import numpy as np
import pytest

from mmravlt.pictures import (
    NAMED,
    add_legend,
    colour,
    draw_objects,
    new_figure,
    outlines,
    png,
    replace_file,
    short,
    shrink,
)


@pytest.mark.parametrize(
    'name,most,expected',
    [
        ('bee', 5, 'bee'),
        ('abcdefghij', 10, 'abcdefghij'),
        ('abcdefghijk', 10, 'abcdef…ijk'),
        ('cost in $', 24, r'cost in \$'),
    ],
)
def test_long_names_lose_their_middle(name, most, expected):
    assert short(name, most) == expected


def test_no_name_is_taken_for_a_formula():
    figure = new_figure(3, 2, 'from $1 to $2')
    figure.subplots().set_title(short('$\\frac$'))
    assert png(figure).startswith(b'\x89PNG')  # a formula would raise


def test_a_legend_names_some_classes_and_counts_the_others():
    figure = new_figure(6, 2)
    figure.subplots()
    add_legend(figure, {*range(20), 255}, [f'class {i}' for i in range(30)])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [*(f'class {i}' for i in range(13)), 'and 7 more']


def test_a_legend_of_nothing_is_left_out():
    figure = new_figure(6, 2)
    add_legend(figure, set(), ['ant'])
    assert not figure.legends


def test_a_large_image_is_made_smaller():
    image, step = shrink(np.zeros((3000, 1000, 3), np.uint8))
    assert (image.shape, step) == ((750, 250, 3), 4)
    image, step = shrink(np.zeros((900, 1000), np.uint8))
    assert (image.shape, step) == ((900, 1000), 1)


def test_the_outline_of_a_mask_goes_around_it():
    mask = np.zeros((20, 30), bool)
    mask[5:10, 12:18] = True
    (polygon,) = outlines(mask)
    points = np.array(polygon).reshape(-1, 2)
    assert points.min(0).tolist() == [12, 5]
    assert points.max(0).tolist() == [17, 9]
    assert outlines(np.zeros((20, 30), bool)) == []


@pytest.mark.parametrize('number', [NAMED, NAMED + 1])
def test_objects_are_named_unless_they_are_many(number):
    axes = new_figure(4, 4).subplots()
    axes.imshow(np.zeros((50, 50, 3), np.uint8))
    draw_objects(axes, [(1, [4, 30, 10, 10], [], 'bee')] * number, step=2)
    assert len(axes.patches) == number
    assert axes.patches[0].get_bbox().bounds == (2, 15, 5, 5)
    assert axes.patches[0].get_edgecolor()[:3] == pytest.approx(colour(1))
    assert len(axes.texts) == (number if number == NAMED else 0)


def test_a_file_that_cannot_be_written_leaves_the_former(tmp_path):
    path = tmp_path / 'curves.png'
    replace_file(path, b'former')
    (tmp_path / 'curves.png.partial').mkdir()
    with pytest.raises(OSError, match='partial'):
        replace_file(path, b'later')
    assert path.read_bytes() == b'former'


def test_no_part_stays_beside_a_file(tmp_path):
    replace_file(tmp_path / 'curves.png', b'all')
    assert [path.name for path in tmp_path.iterdir()] == ['curves.png']
