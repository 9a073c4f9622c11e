"""Panoptic segmentation, with mmdet: COCO's panoptic folders."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import DataError, Prediction, Task
from .coco import (
    CATEGORIES,
    IMAGES,
    CocoSplit,
    check_row,
    find_annotations,
    find_image_dir,
    missing_files,
    read_tables,
    use_coco,
)
from .config import dicts, set_class_weights, set_num_classes
from .detection import DETECTION, run_two_stage
from .files import check_files, is_first_process, need_folder, unreadable

if TYPE_CHECKING:
    from mmengine.config import Config

MAPS = dict(image_id=int | str, file_name=str, segments_info=list)
SEGMENTS = dict(id=int, category_id=int | str, bbox=list, area=Real, iscrowd=int)
IGNORED = 255  # what mmdet takes for pixels of no class


def recognises(cfg: Config) -> bool:
    """Whether a head of the model tells stuff apart, too."""
    return any(node.get('num_stuff_classes') for node in dicts(cfg.get('model')))


def use_panoptic_data(cfg: Config, root: Path, training: bool) -> None:
    """Make the config of a panoptic segmentor use COCO's panoptic layout.

    Args:
        cfg (Config): changed in place.
        root (Path): holds ``annotations/panoptic_{train,val}*.json``, beside each a
            folder of the same name with one PNG per image, whose colours are the ids
            of segments, and, beside ``annotations``, the folders of images.
        training (bool): whether the training split must be there.

    Raises:
        DataError: if the config does not fit or the folder lacks something.
    """
    metric = dict(type='CocoPanopticMetric')
    val = use_coco(cfg, root, training, read_split, 'CocoPanopticDataset', metric)
    things, stuff = (len(val.metainfo[f'{k}_classes']) for k in ('thing', 'stuff'))
    for head in dicts(cfg.model):
        if 'num_stuff_classes' in head:
            old = head['num_things_classes'] + head['num_stuff_classes']
            head.update(num_things_classes=things, num_stuff_classes=stuff)
            set_class_weights(head, old, things + stuff)
    if any('num_classes' in node for node in dicts(cfg.model)):
        set_num_classes(cfg, things)  # of what finds the objects


def read_split(root: Path, split: str) -> CocoSplit:
    """Find and check one split of a panoptic folder.

    Args:
        root (Path): the folder that holds ``annotations``.
        split (str): 'train' or 'val'.

    Returns:
        CocoSplit: what was found.

    Raises:
        DataError: says what was looked for and where, or what is wrong.
    """
    ann_file = find_annotations(root, 'panoptic', split)
    categories = dict(CATEGORIES, isthing=int)
    layout = dict(images=IMAGES, annotations=MAPS, categories=categories)
    content = read_tables(ann_file, layout)
    metainfo = _read_classes(ann_file, content['categories'])
    maps = _pair_maps(ann_file, content)
    _check_segments(ann_file, content)
    things = {row['id'] for row in content['categories'] if row['isthing']}
    segments = [s for row in content['annotations'] for s in row['segments_info']]
    if split == 'train' and not any(
        s['category_id'] in things and not s['iscrowd'] for s in segments
    ):
        raise DataError(
            f'{ann_file} has no segments of things but crowds, so nothing can be '
            'learnt; mmdet leaves out images without things.'
        )
    images = {image['file_name']: image for image in content['images']}
    image_dir = find_image_dir(root, ann_file, split, list(images))
    map_dir = ann_file.with_suffix('')
    need_folder(map_dir, 'of PNG maps')
    missing = missing_files(map_dir, [row['file_name'] for row in maps.values()])
    if missing:
        raise DataError(
            f'{ann_file} lists {len(maps)} maps; {len(missing)} of them, such as '
            f'{missing[0]!r}, are not in {map_dir}.'
        )
    if is_first_process():
        pairs = [(map_dir, images[name], row) for name, row in maps.items()]
        check_files(lambda pair: _check_map(*pair), pairs, f'maps in {map_dir}')
    return CocoSplit(ann_file, dict(img=image_dir, seg=map_dir), metainfo)


def _read_classes(ann_file: Path, categories: list[dict]) -> dict[str, tuple]:
    """The names of all classes, of things and of stuff, as mmdet needs them."""
    names = [row['name'] for row in categories]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f'{ann_file} names the category {name!r} twice, but mmdet finds '
                'categories by their names; give each a name of its own.'
            )
    things = tuple(row['name'] for row in categories if row['isthing'])
    stuff = tuple(row['name'] for row in categories if not row['isthing'])
    if not things or not stuff:
        raise DataError(
            f'{ann_file} has {len(things)} categories of things (isthing is 1) and '
            f'{len(stuff)} of stuff (0), but a panoptic segmentor needs both; use a '
            'detector for things alone, a semantic segmentor for stuff alone.'
        )
    if (*things, *stuff) != tuple(names):
        raise DataError(
            f'{ann_file} lists the stuff {stuff[0]!r} before the last of its things, '
            f'{things[-1]!r}, but mmdet numbers things first; put all categories with '
            'isthing 1 before the others.'
        )
    if len(names) > IGNORED:
        raise DataError(
            f'{ann_file} has {len(names)} categories; mmdet tells at most {IGNORED} '
            'apart.'
        )
    return dict(classes=tuple(names), thing_classes=things, stuff_classes=stuff)


def _pair_maps(ann_file: Path, content: dict) -> dict[str, dict]:
    """The row in 'annotations' of each image, by the name of the image.

    mmdet looks for the map of an image by its name alone.
    """
    rows = {row['image_id']: row for row in content['annotations']}
    if len(rows) < len(content['annotations']):
        raise DataError(f'{ann_file} has two maps for one image; there must be one.')
    unknown = rows.keys() - {image['id'] for image in content['images']}
    if unknown:
        raise DataError(
            f'{ann_file} has a map with image_id {min(unknown, key=str)!r}, which is '
            "not in 'images'."
        )
    pairs = {}
    for image in content['images']:
        name, row = image['file_name'], rows.get(image['id'])
        if not name.endswith(('.jpg', '.png')) or Path(name).name != name:
            raise DataError(
                f'{ann_file} lists the image {name!r}; mmdet needs names that end in '
                '.jpg or .png, without folders in them.'
            )
        if row is None:
            raise DataError(f'{ann_file} has no map for the image {name!r}.')
        expected = name.replace('.jpg', '.png')
        if row['file_name'] != expected:
            raise DataError(
                f'{ann_file} says that the map of {name!r} is {row["file_name"]!r}, '
                f'but mmdet looks for {expected!r}; rename it.'
            )
        pairs[name] = row
    return pairs


def _check_segments(ann_file: Path, content: dict) -> None:
    """Each segment must have a box, a known category and an id that fits a colour."""
    categories = {row['id'] for row in content['categories']}
    for row in content['annotations']:
        for i, segment in enumerate(row['segments_info']):
            place = f'segments_info[{i}] of {row["file_name"]!r}'
            check_row(ann_file, place, segment, SEGMENTS)
            if segment['category_id'] not in categories:
                raise DataError(
                    f'{ann_file}: {place} has category_id '
                    f"{segment['category_id']!r}, which is not in 'categories'."
                )
            if not 0 < segment['id'] < 256**3:
                raise DataError(
                    f'{ann_file}: {place} has the id {segment["id"]}; give one from 1 '
                    f'to {256**3 - 1}, which three bytes hold.'
                )
            box = segment['bbox']
            if len(box) != 4 or not all(isinstance(x, Real) for x in box):
                raise DataError(
                    f'{ann_file}: {place} has bbox {box!r}; give [x, y, width, height].'
                )


def _check_map(map_dir: Path, image: dict, row: dict) -> None:
    """The colours of a map must be the segments that its row lists."""
    path = map_dir / row['file_name']
    try:
        with Image.open(path) as opened:
            mode, size = opened.mode, opened.size
            colours = opened.getcolors(256**2) if mode == 'RGB' else None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise unreadable(path, error) from None
    if mode != 'RGB' or colours is None:
        raise DataError(
            f'{path} is no map of segments (mode {mode}); save a PNG in RGB, whose '
            'pixels are R + 256 G + 65536 B = the id of their segment, or black.'
        )
    if size != (image['width'], image['height']):
        raise DataError(
            f'{path} is {size[0]}×{size[1]} pixels, but its image is '
            f'{image["width"]}×{image["height"]}; a map needs the size of its image.'
        )
    ids = {r + 256 * g + 256**2 * b for _, (r, g, b) in colours} - {0}
    listed = [segment['id'] for segment in row['segments_info']]
    if len(listed) > len(set(listed)) or ids != set(listed):
        twice = {i for i in listed if listed.count(i) > 1}
        odd = ids.symmetric_difference(listed) or twice
        raise DataError(
            f'{path} and its segments_info must have the same ids, each once there; '
            f'{min(odd)} is not so.'
        )


def predict(inferencer, image: Path, score_thr: float) -> Prediction:
    """The segments of an image, and a map of their ids in COCO's colours.

    An id is mmdet's: the label, plus 1000 for the first object, 2000 for the second …
    """
    from mmdet.evaluation import INSTANCE_OFFSET
    from panopticapi.utils import id2rgb

    done = inferencer(str(image), return_vis=True, return_datasamples=True)
    (sample,), (drawing,) = done['predictions'], done['visualization']
    ids = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
    names, things = inferencer.classes, inferencer.model.num_things_classes
    ids = np.where(ids % INSTANCE_OFFSET < len(names), ids, 0)  # 0 is no segment
    segments = []
    for i, area in zip(*np.unique(ids[ids > 0], return_counts=True), strict=True):
        label = int(i) % INSTANCE_OFFSET
        segment = dict(id=int(i), label=label, is_thing=label < things, area=int(area))
        segments.append({**segment, 'class': names[label]})
    return Prediction(dict(segments=segments), drawing, id2rgb(ids))


def run_heads(meter, features: tuple[Tensor, ...]) -> None:
    """The heads of a detector, and the one for stuff; fusing costs no multiply-adds."""
    run_two_stage(meter, features)
    meter.run('semantic_head', features)


def make_sample(size: tuple[int, int]):
    """A data sample with four objects, each a filled box, and nothing else labelled."""
    from mmengine.structures import PixelData

    sample = DETECTION.sample(size)
    labels = torch.full((1, *size), IGNORED)
    objects = sample.gt_instances
    for label, mask in zip(objects.labels, objects.masks.masks, strict=True):
        labels[0, torch.from_numpy(mask).bool()] = label
    sample.gt_sem_seg = PixelData(sem_seg=labels)
    return sample


PANOPTIC = Task(
    name='panoptic segmentation',
    package=DETECTION.package,
    distributions=DETECTION.distributions,
    layout="COCO's (annotations/panoptic_{train,val}*.json, a folder of PNGs with the "
    'same name beside each, and image folders)',
    use_data=use_panoptic_data,
    build_inferencer=DETECTION.build_inferencer,
    predict=predict,
    draw_tests=DETECTION.draw_tests,
    dump_metric=DETECTION.dump_metric,
    image_size=DETECTION.image_size,
    heads=dict(TwoStagePanopticSegmentor=run_heads),
    sample=make_sample,
    recognises=recognises,
)
