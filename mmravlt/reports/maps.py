"""Maps of classes beside their truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.maps import IGNORED
from ..pictures import short, tinted
from .base import draw_panels


@dataclass(frozen=True)
class Maps:
    """An image's maps of class indices, H×W, smaller as for pictures; 255 is ignored.

    Attributes:
        path (str): of the image.
        truth (ndarray): what is labelled.
        guess (ndarray): what was predicted.
        edges (tuple | None): H×W, of both: True where one segment ends.
    """

    path: str
    truth: np.ndarray
    guess: np.ndarray
    edges: tuple[np.ndarray, np.ndarray] | None = None


def draw_maps(
    shown: list[Maps],
    read: Callable[[str], tuple[np.ndarray, int]],
    classes: list[str],
    title: str,
) -> bytes:
    """Draw the truth of each image, and beside it the prediction.

    Args:
        shown (list[Maps]): of the images.
        read (Callable): gives an image by its path, as :meth:`Report.read`.
        classes (list[str]): in the order of their indices.
        title (str): of the whole.

    Returns:
        bytes: of a PNG file.
    """
    panels, used = [], set()
    for maps in shown:
        image, _ = read(maps.path)
        sides = (short(Path(maps.path).name), maps.truth), ('prediction', maps.guess)
        for i, (name, label_map) in enumerate(sides):
            used |= set(np.unique(label_map).tolist()) - {IGNORED}
            drawn = tinted(image, label_map)
            if maps.edges:
                drawn[maps.edges[i]] = 255
            panels.append((name, drawn, None))
    title += ': the truth (left of each pair) and the prediction'
    return draw_panels(title, panels, 4, used, classes)
