"""Images and maps for tests, each map recognised by the brightness of its image."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('road', 'tree', 'sky')
COLOURS = {0: (128, 64, 128), 1: (0, 128, 0), 2: (70, 130, 180), 255: (0, 0, 0)}
SIZE = (16, 12)
STEP = 40


def labels_of(number):
    """The map of an image: all classes, and ignored pixels at one edge."""
    labels = np.random.default_rng(number).integers(0, 3, SIZE[::-1], np.uint8)
    labels[:, 0] = 255
    return labels


def in_colour(labels, colours=COLOURS):
    picture = np.zeros((*labels.shape, 3), np.uint8)
    for value, colour in colours.items():
        picture[labels == value] = colour
    return picture


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_image(path, number):
    save(path, np.full((*SIZE[::-1], 3), STEP * number, np.uint8))


def save_indices(path, number):
    save(path, labels_of(number))


def save_colours(path, number):
    save(path, in_colour(labels_of(number)))


def write_names(folder, names=CLASSES):
    (folder / 'classes.txt').write_text('\n'.join(names) + '\n')


def write_split(folder, images, maps, numbers=(0, 1, 2), saver=save_indices):
    """Save numbered images and maps under names with the number in the place of {}."""
    for number in numbers:
        save_image(folder / images.format(number), number)
        saver(folder / maps.format(number), number)


def write_data(folder):
    """The simplest layout: images 0 to 2 in train and 3 to 4 in val."""
    for split, numbers in (('train', (0, 1, 2)), ('val', (3, 4))):
        pattern = f'images/{split}/{{}}.png', f'annotations/{split}/{{}}.png'
        write_split(folder, *pattern, numbers=numbers)
    write_names(folder)
    return folder


def read(prepared, split):
    """The numbers of the images that training reads, each with its map."""
    pairs = json.loads(Path(prepared.splits[split]['ann_file']).read_text())
    found = {}
    for image, label_map in pairs:
        number = round(np.asarray(Image.open(image)).mean() / STEP)
        found[number] = np.asarray(Image.open(label_map))
    assert len(found) == len(pairs) == prepared.splits[split]['images']
    return found


def assert_whole(prepared, train=(0, 1, 2), val=(3, 4)):
    """Each image has the map it was saved with."""
    for split, numbers in (('train', train), ('val', val)):
        found = read(prepared, split)
        assert sorted(found) == sorted(numbers)
        for number, labels in found.items():
            np.testing.assert_array_equal(labels, labels_of(number))
