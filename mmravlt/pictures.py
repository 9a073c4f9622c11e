"""The style that all pictures share: colours, sizes of text, and how files are put."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Polygon, Rectangle

from .data.maps import IGNORED

# Okabe and Ito's colours, which people with colour blindness can tell apart
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442')
STYLES = ('-', '--', '-.', ':')  # of lines, so that colours are not all there is
TITLE, TEXT, SMALL = 13, 9, 7  # sizes of text, in points
SIDE_SHOWN = 640  # pixels of an image's longer side, from 1 to 2 times that
LEGEND_SHOWN = 14  # classes
NAMED = 25  # of more objects than this in an image, none is named beside its box


def colour(index: int) -> tuple[float, float, float]:
    """Of a class, RGB from 0 to 1: seven colours, then their tints and shades."""
    base = np.array(to_rgb(COLOURS[index % len(COLOURS)]))
    tint, shade = 0.45 + 0.55 * base, 0.5 * base
    return tuple((base, tint, shade)[index // len(COLOURS) % 3].tolist())


def plain(name: str) -> str:
    """A name as Matplotlib has to get it to take none of it for a formula."""
    return name.replace('$', r'\$')


def short(name: str, most: int = 24) -> str:
    """A name of at most so many characters, without its middle, and :func:`plain`."""
    if len(name) > most:
        end = (most - 1) // 3
        name = name[: most - 1 - end] + '…' + name[-end:]
    return plain(name)


def new_figure(width: float, height: float, title: str = '') -> Figure:
    """An empty figure, its size in inches."""
    figure = Figure(figsize=(width, height), dpi=100, layout='constrained')
    if title:
        figure.suptitle(plain(title), fontsize=TITLE)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png')
    return content.getvalue()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of which nobody ever sees a part."""
    partial = path.with_name(path.name + '.partial')
    partial.write_bytes(content)
    os.replace(partial, path)


def shrink(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Leave out rows and columns that nobody would see.

    Args:
        image (ndarray): H×W, or H×W×3.

    Returns:
        tuple: the smaller one, and one out of how many rows it has.
    """
    step = max(max(image.shape[:2]) // SIDE_SHOWN, 1)
    return image[::step, ::step], step


def tinted(image: np.ndarray, label_map: np.ndarray) -> np.ndarray:
    """An image in the colours of its classes; as it is where pixels are ignored.

    Args:
        image (ndarray): H×W×3, RGB, 0 to 255.
        label_map (ndarray): H×W class indices; 255 is ignored.
    """
    table = np.array([colour(i) for i in range(IGNORED)])
    known = label_map != IGNORED
    mixed = 0.45 * image + 0.55 * 255 * table[np.where(known, label_map, 0) % IGNORED]
    return np.where(known[..., None], mixed, image).astype(np.uint8)


def outlines(mask: np.ndarray) -> list[list[float]]:
    """The polygons around a mask, H×W, each a list of x, y, x, y …"""
    import cv2

    mask = np.ascontiguousarray(mask, np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [polygon.reshape(-1).tolist() for polygon in found if len(polygon) > 2]


def draw_objects(axes: Axes, objects: list[tuple], step: int = 1) -> None:
    """Draw boxes and masks on an image.

    Args:
        axes (Axes): with the image.
        objects (list[tuple]): ``(class index, [x, y, width, height], polygons)`` each,
            and a text for a few of them; polygons are lists of x, y, x, y …
        step (int): of :func:`shrink`, by which all of this is divided.
    """
    for index, box, polygons, *_ in objects:
        x, y, width, height = (value / step for value in box)
        line = dict(edgecolor=colour(index), linewidth=1.2)
        for polygon in polygons:
            points = np.array(polygon, float).reshape(-1, 2) / step
            axes.add_patch(Polygon(points, facecolor=(*colour(index), 0.35), **line))
        if not polygons:
            axes.add_patch(Rectangle((x, y), width, height, fill=False, **line))
    for index, (x, y, *_), _, *texts in objects if len(objects) <= NAMED else ():
        light = np.dot(colour(index), (0.3, 0.6, 0.1)) > 0.55
        inside = y / step < 0.05 * abs(np.subtract(*axes.get_ylim()))
        for text in texts:
            axes.text(
                max(x, 0) / step,
                max(y, 0) / step,
                text,
                fontsize=SMALL,
                color='black' if light else 'white',
                verticalalignment='top' if inside else 'bottom',
                clip_on=True,
                bbox=dict(facecolor=colour(index), linewidth=0, pad=0.8, alpha=0.85),
            )


def add_legend(
    figure: Figure | SubFigure, indices: Iterable[int], classes: list[str]
) -> None:
    """Say below a figure which colours stand for which classes."""
    used = sorted(index for index in set(indices) if index < len(classes))
    handles = [Patch(color=colour(i), label=short(classes[i])) for i in used]
    if len(handles) > LEGEND_SHOWN:
        more = len(handles) - LEGEND_SHOWN + 1
        handles[LEGEND_SHOWN - 1 :] = [Patch(alpha=0, label=f'and {more} more')]
    if handles:
        place = dict(loc='outside lower center', ncols=min(len(handles), 7))
        figure.legend(handles=handles, fontsize=TEXT, **place)
