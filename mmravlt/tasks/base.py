"""What the tools need to know of a task, and how they say what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import DataOptions, Prepared

if TYPE_CHECKING:  # nothing here needs MMEngine before there is a config
    from mmengine.config import Config


class TaskError(ValueError):
    """A config or a model is of no task known here; the message says which are."""


@dataclass(frozen=True)
class Prediction:
    """What a model finds in an image.

    Attributes:
        found (dict): what JSON can hold.
        drawing (ndarray): the image with what was found, H×W×3, RGB, 0–255.
        label_map (ndarray | None): what each pixel is, as a PNG can hold it: H×W
            numbers, or H×W×3 in RGB.
    """

    found: dict
    drawing: np.ndarray
    label_map: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """All that depends on the task of a model.

    Libraries are imported inside the functions only, so that one which is missing or
    broken stops its own tasks alone.

    Attributes:
        name (str): as people call it.
        package (str): the one that has its models, which is the
            ``default_scope`` of their configs.
        distributions (tuple[str]): by which names pip may have installed that.
        layout (str): of the folder that ``--data`` takes, for its help.
        use_data (Callable): ``(cfg, root, options)`` makes a config train and evaluate
            on the data in a folder, with its classes, and returns what was found;
            raises DataError. What ``options.splits`` lacks is not needed.
        build_inferencer (Callable): ``(cfg, device)`` gives the library's own
            inferencer, with initial weights.
        predict (Callable): ``(inferencer, image, score_thr)`` gives the Prediction
            for an image file; objects of lower scores are not drawn.
        draw_tests (Callable): ``(cfg, folder)`` makes the library's visualisation
            hook draw what a test predicts into a folder.
        dump_metric (Callable): gives the metric class that writes what a test
            predicts to a file.
        report (Callable): gives the class, of :mod:`mmravlt.reports`, that makes tables
            and pictures of an evaluation.
        score (Callable): ``(cfg)`` gives the name of the score by which a training is
            judged, as the library logs it; higher is better.
        image_size (tuple[int, int]): height and width at which models are counted
            and timed, in pixels; the paper's.
        heads (Mapping): by the name of a model's base class, ``(meter, features)``
            runs the heads on the features of backbone and neck, through
            ``meter.run``; see :mod:`mmravlt.analysis.flops`. May raise TaskError.
        sample (Callable): ``(size)`` gives the data sample of an image of this height
            and width, with targets made by hand.
        recognises (Callable): ``(cfg)`` tells whether a config of the library is for
            this task.
    """

    name: str
    package: str
    distributions: tuple[str, ...]
    layout: str
    use_data: Callable[[Config, Path, DataOptions], Prepared]
    build_inferencer: Callable[[Config, str], Any]
    predict: Callable[[Any, Path, float], Prediction]
    draw_tests: Callable[[Config, str], None]
    dump_metric: Callable[[], type]
    report: Callable[[], type]
    score: Callable[[Config], str]
    image_size: tuple[int, int]
    heads: Mapping[str, Callable]
    sample: Callable[[tuple[int, int]], Any]
    recognises: Callable[[Config], bool] = lambda cfg: True


def sample_meta(size: tuple[int, int]) -> dict:
    """What every library's data samples say of an image that was not resized."""
    shapes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return dict(dict.fromkeys(shapes, size), scale_factor=(1.0, 1.0), img_id=0)
