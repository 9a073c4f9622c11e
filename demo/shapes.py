"""Draw a small COCO-style set of coloured shapes, with instance masks.

    python demo/shapes.py work_dirs/shapes --train 200 --val 40

writes ``annotations/instances_{train,val}.json`` and the folders ``train`` and
``val`` of PNG images. Equal arguments give equal files.
"""

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('circle', 'rectangle', 'triangle', 'star')
SUBPIXELS = 8  # each pixel is drawn as 8×8, so that edges are smooth


def write_shapes(
    folder: str | Path,
    num_train: int = 200,
    num_val: int = 40,
    size: int = 128,
    seed: int = 0,
) -> None:
    """Write a training and a validation set.

    An image is the same however many others are asked for. The annotation
    files come last, so a folder that has both is complete.

    Args:
        folder (str | Path): made if missing; files of an earlier set go.
        num_train (int): images to train on.
        num_val (int): images to validate on.
        size (int): height and width of each image in pixels.
        seed (int): other seeds draw other images.

    Raises:
        ValueError: if nothing sensible can be drawn with these arguments.
    """
    settings = _settings(num_train, num_val, size, seed)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder} is a file; name a folder to write to.')
    annotations = folder / 'annotations'
    annotations.mkdir(parents=True, exist_ok=True)
    for split in ('train', 'val'):
        (annotations / f'instances_{split}.json').unlink(missing_ok=True)
    contents = {}
    for stream, (split, count) in enumerate((('train', num_train), ('val', num_val))):
        images = folder / split
        images.mkdir(exist_ok=True)
        for old in images.glob('[0-9]*.png'):
            old.unlink()
        contents[split] = _write_split(images, count, size, (seed, stream))
    for split, content in contents.items():
        content['info'] = settings
        text = json.dumps(content, indent=1) + '\n'
        path = annotations / f'instances_{split}.json'
        path.write_text(text, encoding='utf-8')


def is_complete(
    folder: str | Path,
    num_train: int = 200,
    num_val: int = 40,
    size: int = 128,
    seed: int = 0,
) -> bool:
    """Whether ``write_shapes`` with these arguments has written ``folder``."""
    settings = _settings(num_train, num_val, size, seed)
    folder = Path(folder)
    for split in ('train', 'val'):
        path = folder / 'annotations' / f'instances_{split}.json'
        if not path.is_file():
            return False
        content = json.loads(path.read_text(encoding='utf-8'))
        if content.get('info') != settings:
            return False
        names = [image['file_name'] for image in content['images']]
        if not all((folder / split / name).is_file() for name in names):
            return False
    return True


def _settings(num_train: int, num_val: int, size: int, seed: int) -> dict:
    """The arguments as they are kept in the annotation files, checked."""
    for name, value, least in (
        ('train', num_train, 1),
        ('val', num_val, 1),
        ('size', size, 32),
        ('seed', seed, 0),
    ):
        if value < least:
            raise ValueError(f'{name} is {value}; give at least {least}.')
    if size > 4096:
        raise ValueError(f'size is {size}; give at most 4096 pixels.')
    return dict(
        description='coloured shapes on noise',
        train=num_train,
        val=num_val,
        size=size,
        seed=seed,
    )


def _write_split(folder: Path, count: int, size: int, stream: tuple) -> dict:
    """Draw ``count`` images and return what their annotation file holds."""
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng([*stream, i])
        image = _background(rng, size)
        name = f'{i:05d}.png'
        for x, y, radius in _places(rng, size):
            label = int(rng.integers(len(CLASSES)))
            corners = _outline(rng, CLASSES[label], radius) + (x, y)
            corners = corners.round(2)  # drawn and written are the same
            _paint(rng, image, corners)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i + 1,
                    category_id=label + 1,
                    iscrowd=0,
                    **_geometry(corners),
                )
            )
        images.append(dict(id=i + 1, file_name=name, height=size, width=size))
        if not cv2.imwrite(str(folder / name), image.round().astype(np.uint8)):
            raise OSError(f'{folder / name} could not be written.')
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Dim noise at several scales, shape (size, size, 3), values 0 to 255."""
    image = np.full((size, size, 3), rng.uniform(55, 85))
    for cells, grey, tint in ((3, 14, 10), (8, 12, 4), (size // 4, 8, 2)):
        noise = rng.normal(0, grey, (cells, cells, 1))
        noise = noise + rng.normal(0, tint, (cells, cells, 3))
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 5, (size, size, 1))
    return image.clip(0, 255)


def _places(rng: np.random.Generator, size: int) -> list[tuple]:
    """Circles (x, y, radius) in pixels, inside the image and apart."""
    gap = 0.02 * size
    wanted = int(rng.integers(2, 5))
    places = []
    for _ in range(40):  # a crowded image gets fewer shapes than wanted
        radius = size * rng.uniform(0.13, 0.23)
        x, y = rng.uniform(radius + gap, size - radius - gap, 2)
        if all(math.hypot(x - u, y - v) > radius + r + gap for u, v, r in places):
            places.append((x, y, radius))
        if len(places) == wanted:
            break
    return places


def _outline(rng: np.random.Generator, name: str, radius: float) -> np.ndarray:
    """Corners of a shape around the origin, turned at random, shape (N, 2)."""
    if name == 'rectangle':  # twice as long as wide
        slope = math.atan(0.5)
        angles = np.array([slope, np.pi - slope, np.pi + slope, -slope])
        radii = radius
    else:
        corners, inner = dict(circle=(48, 1), triangle=(3, 1), star=(10, 0.45))[name]
        angles = np.arange(corners) * 2 * np.pi / corners
        radii = np.where(np.arange(corners) % 2, inner, 1) * radius
    angles = angles + rng.uniform(0, 2 * np.pi)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _paint(rng: np.random.Generator, image: np.ndarray, corners: np.ndarray) -> None:
    """Fill a polygon with a bright, slightly noisy colour, in place."""
    size = len(image)
    # Coordinates as in COCO: the first pixel covers 0 to 1. OpenCV counts from
    # the middle of a pixel, and in 1/256 of it as asked by `shift`.
    points = ((corners * SUBPIXELS - 0.5) * 256).round().astype(np.int32)
    fine = np.zeros((size * SUBPIXELS, size * SUBPIXELS), np.uint8)
    cv2.fillPoly(fine, [points], 255, shift=8)
    cover = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / 255
    hue, saturation = rng.uniform(0, 180), rng.uniform(90, 230)
    colour = np.array([[[hue, saturation, rng.uniform(190, 250)]]], np.uint8)
    colour = cv2.cvtColor(colour, cv2.COLOR_HSV2BGR).astype(float)
    filled = (colour + rng.normal(0, 6, (size, size, 1))).clip(0, 255)
    image += cover[..., None] * (filled - image)


def _geometry(corners: np.ndarray) -> dict:
    """COCO's polygon, box and area of a shape."""
    x, y = corners.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    low, high = corners.min(0), corners.max(0)
    return dict(
        segmentation=[corners.ravel().tolist()],
        bbox=np.concatenate([low, high - low]).round(2).tolist(),
        area=round(float(area), 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw a COCO-style set of shapes')
    parser.add_argument('folder', metavar='DIR', help='where the set goes')
    parser.add_argument('--train', type=int, default=200, help='training images')
    parser.add_argument('--val', type=int, default=40, help='validation images')
    parser.add_argument('--size', type=int, default=128, help='side in pixels')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    try:
        write_shapes(args.folder, args.train, args.val, args.size, args.seed)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
