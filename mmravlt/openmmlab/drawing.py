"""One drawing for each image of a test, with the hook of any library."""

import math
import os
from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer

LARGEST_DRAWING = 2**25  # pixels, 34 million


def install() -> None:
    """Register the hook where every library finds it."""
    HOOKS.register_module(module=DrawEachImage, force=True)


def draw_each_image(cfg: Config, folder: str, bit_depth: int | None, **options) -> None:
    """Let the visualisation hook of a config draw each image of a test.

    Args:
        cfg (Config): with ``default_hooks.visualization``; changed in place.
        folder (str): where drawings go, absolute.
        bit_depth (int | None): in use of images with more than 8 bits per value.
        options: of the library's hook, such as those that turn it on.
    """
    hook = {**cfg.default_hooks.visualization, **options}
    cfg.default_hooks.visualization = dict(
        type='DrawEachImage', hook=hook, folder=folder, bit_depth=bit_depth
    )


def shrink(image: np.ndarray, sample: BaseDataElement) -> tuple:
    """Leave out rows and columns of an image that is too large to draw on.

    To draw a box and a mask takes some 130 bytes of memory per pixel.

    Args:
        image (ndarray): H×W×3.
        sample (BaseDataElement): what was found in it, and is labelled; unchanged.

    Returns:
        tuple: both, of at most :data:`LARGEST_DRAWING` pixels.
    """
    height, width = image.shape[:2]
    step = math.ceil(math.sqrt(height * width / LARGEST_DRAWING))
    if step == 1:
        return image, sample
    small = sample.new()
    for name, part in sample.items():
        if isinstance(part, PixelData):
            pixels = {key: value[..., ::step, ::step] for key, value in part.items()}
            small.set_field(type(part)(metainfo=part.metainfo, **pixels), name)
        elif isinstance(part, InstanceData):
            part = part.new()
            if 'bboxes' in part:
                part.bboxes = part.bboxes / step
            if 'masks' in part:
                masks = part.masks
                if hasattr(masks, 'to_ndarray'):  # those of labels
                    masks = masks.to_ndarray()
                part.masks = masks[:, ::step, ::step]
            small.set_field(part, name)
    return image[::step, ::step].copy(), small


def draw_small(visualizer: Visualizer | None) -> None:
    """Let a visualiser of mmdet or mmseg :func:`shrink` what is too large for it."""
    if visualizer is None:  # the config has none
        return
    draw = visualizer.add_datasample

    @wraps(draw)
    def shrink_and_draw(name, image, data_sample, **options):
        return draw(name, *shrink(image, data_sample), **options)

    visualizer.add_datasample = shrink_and_draw


class DrawEachImage(Hook):
    """Runs a library's visualisation hook, and decides where its drawings go.

    The libraries name drawings after the images, without their folders, so one of
    ``a/0.jpg`` and ``b/0.jpg`` overwrites the other. Here the folders below the one
    that all images share are kept: ``a/0.jpg.png`` and ``b/0.jpg.png``.

    Args:
        hook (dict): config of the library's hook.
        folder (str): where drawings go.
        bit_depth (int | None): in use of images with more than 8 bits per value, which
            are drawn on as the model sees them.
    """

    def __init__(self, hook: dict, folder: str, bit_depth: int | None = None) -> None:
        self.hook = HOOKS.build(hook)
        self.visualizer = self.hook._visualizer
        self.hook._visualizer = SimpleNamespace(
            add_datasample=self.draw_sample, visualize_cls=self.draw_class
        )
        self.folder, self.bit_depth = folder, bit_depth

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all images share."""
        self.logger = runner.logger
        dataset = runner.test_dataloader.dataset
        paths = (dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
        self.shared = os.path.commonpath({os.path.dirname(path) for path in paths})

    def after_test_iter(self, *arguments, **named) -> None:
        """Draw a batch."""
        self.hook.after_test_iter(*arguments, **named)

    def draw_sample(self, name: str, image, data_sample, **options) -> None:
        """What the hooks of mmdet and mmseg call to draw an image.

        Args:
            name (str): of the drawing, which becomes another.
            image (ndarray): H×W×3, RGB, uint8.
            data_sample (BaseDataElement): with ``img_path``.
            options: of the visualiser.
        """
        if self.bit_depth:
            from ..data.images import read_image  # which lifts Pillow's limit of pixels

            image = read_image(data_sample.img_path, self.bit_depth)[..., ::-1]
        image, small = shrink(image, data_sample)
        self._draw(self.visualizer.add_datasample, name, image, small, options)

    def draw_class(self, image, data_sample, name: str, **options) -> None:
        """What the hook of mmpretrain calls; the image is what the model is given."""
        self._draw(self.visualizer.visualize_cls, name, image, data_sample, options)

    def _draw(self, draw, name: str, image, data_sample, options: dict) -> None:
        """Draw into a file of its own; what cannot be drawn is told and left out."""
        path = data_sample.img_path
        file = Path(self.folder, os.path.relpath(path, self.shared) + '.png')
        options['out_file'] = str(file)
        try:
            draw(name=name, image=image, data_sample=data_sample, **options)
        except OSError:
            raise  # that of a folder which cannot be written to
        except Exception as error:  # such as a text that does not fit a tiny image
            self.logger.warning(
                f'{path} could not be drawn ({type(error).__name__}: {error}); its '
                'predictions count all the same'
            )
