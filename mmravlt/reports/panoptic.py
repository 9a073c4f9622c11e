"""Segments of a panoptic segmentor beside those that are labelled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ..data.maps import IGNORED
from ..data.summary import spread
from ..pictures import shrink
from .base import SAMPLES, SAMPLES_SHOWN, Report
from .maps import Maps, draw_maps


class PanopticReport(Report):
    """The report of a panoptic segmentor: a picture of samples."""

    def __init__(self, dataset, metrics: list, bit_depth: int) -> None:
        super().__init__(dataset, metrics, bit_depth)
        places = spread(range(len(dataset)), SAMPLES_SHOWN)
        self.shown = {dataset.get_data_info(i)['img_path']: i for i in places}

    def keep(self, sample: dict, position: int) -> Maps | None:
        """The segments of an image that will be drawn."""
        path = sample['img_path']
        if path not in self.shown:
            return None
        from mmdet.evaluation import INSTANCE_OFFSET

        info = self.dataset.get_data_info(self.shown[path])
        with Image.open(info['seg_map_path']) as opened:
            colours = np.array(opened.convert('RGB'), np.int64)
        truth, _ = shrink(colours @ (1, 256, 256**2))
        guess, _ = shrink(sample['pred_panoptic_seg']['sem_seg'][0].cpu().numpy())
        true_labels = np.full(truth.shape, IGNORED)
        for segment in info['segments_info']:
            true_labels[truth == segment['id']] = segment['category']
        labels = guess % INSTANCE_OFFSET
        # mmdet's metric has made 0 of what is no segment
        known = (guess > 0) & (labels < len(self.classes))
        labels = np.where(known, labels, IGNORED)
        return Maps(path, true_labels, labels, (_edges(truth), _edges(guess)))

    def make(
        self, found: list[Maps | None], title: str
    ) -> dict[str, Callable[[], bytes]]:
        """``samples.png``."""
        shown = [maps for maps in found if maps]
        return {SAMPLES: lambda: draw_maps(shown, self.read, self.classes, title)}


def _edges(ids: np.ndarray) -> np.ndarray:
    """H×W, True where the pixel to the right or below is of another segment."""
    edges = np.zeros(ids.shape, bool)
    edges[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edges[:-1] |= ids[:-1] != ids[1:]
    return edges
