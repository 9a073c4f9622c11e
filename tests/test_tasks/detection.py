"""A detector and COCO-style folders for tests."""

import json

from mmengine.config import Config

from mmravlt import config_path

TRAIN = 'annotations/instances_train.json'


def mask_rcnn():
    return Config.fromfile(config_path('mmdet/mask_rcnn_ravlt_t_1x.py'))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def class_names(folder):
    content = json.loads((folder / TRAIN).read_text())
    return tuple(category['name'] for category in content['categories'])
