"""Evaluations of made-up predictions, without a model."""

import csv
import logging
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmravlt import config_path, tasks
from mmravlt.openmmlab.reporting import ReportHook

CONFIGS = dict(
    boxes='mmdet/retinanet_ravlt_t_1x.py',
    masks='mmdet/mask_rcnn_ravlt_t_1x.py',
    maps='mmseg/semantic_fpn_ravlt_t_1x.py',
    classes='mmpretrain/ravlt_t_in1k.py',
    segments='mmdet/panoptic_fpn_ravlt_t_1x.py',
)


def config(kind, folder):
    """A config that tests on the data in a folder."""
    cfg = Config.fromfile(config_path(CONFIGS[kind]))
    tasks.use_custom_data(cfg, str(folder))
    return cfg


def fake_runner(cfg, work_dir):
    """What hooks of a test need of a runner."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        cfg=cfg,
        work_dir=str(work_dir),
        logger=logging.getLogger('mmengine'),
        iter=10,
        test_evaluator=evaluator,
        val_evaluator=evaluator,
        test_dataloader=loader,
        val_dataloader=loader,
    )


def feed(runner, predict, seed=0):
    """Evaluate predictions; ``predict(sample, rng)`` adds one to a data sample.

    Returns:
        dict: the scores.
    """
    rng = np.random.default_rng(seed)
    dataset = runner.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope(runner.cfg.default_scope):
        for i in range(len(dataset)):
            sample = dataset[i]['data_samples']
            predict(sample, rng)
            runner.test_evaluator.process([sample])
        return runner.test_evaluator.evaluate(len(dataset))


def hook_of(cfg, results=None):
    return ReportHook(tasks.of(cfg), results)


def run_test(cfg, predict, work_dir, seed=0):
    """Run a test with its report.

    Returns:
        tuple: the scores and the hook.
    """
    hook = hook_of(cfg)
    runner = fake_runner(cfg, work_dir)
    hook.before_test(runner)
    scores = feed(runner, predict, seed)
    hook.after_test_epoch(runner, scores)
    return scores, hook


def noisy_objects(sample, rng):
    """Most of the true objects, moved a little, and some that are not there."""
    truth = sample.gt_instances
    height, width = sample.ori_shape
    boxes = truth.bboxes.tensor.numpy().reshape(-1, 4)
    kept = rng.random(len(boxes)) < 0.8
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(2, 0).reshape(-1, 4)
    moved = (boxes + rng.normal(0, 0.06, boxes.shape) * size)[kept]
    labels = truth.labels.numpy()[kept]
    number = int(labels.max(initial=0)) + 1
    wrong = rng.random(len(labels)) < 0.1
    labels = np.where(wrong, rng.integers(0, number, len(labels)), labels)
    places = rng.random((3, 2)) * (width, height)
    corners = np.concatenate([places, places + rng.uniform(8, 40, (3, 2))], axis=1)
    boxes = np.concatenate([moved, corners]).clip(0, [width, height] * 2)
    labels = np.concatenate([labels, rng.integers(0, number, 3)])
    sure = rng.uniform(0.4, 1, len(moved)), rng.uniform(0.05, 0.6, 3)
    found = dict(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor(labels),
        scores=torch.tensor(np.concatenate(sure), dtype=torch.float32),
    )
    if 'masks' in truth:
        masks = np.zeros((len(boxes), height, width), bool)
        true_masks = truth.masks.to_ndarray()[kept]
        masks[: len(moved)] = np.roll(true_masks, rng.integers(0, 3), axis=2)
        for mask, (x0, y0, x1, y1) in zip(
            masks[len(moved) :], corners.astype(int), strict=True
        ):
            mask[y0:y1, x0:x1] = True
        found['masks'] = torch.tensor(masks)
    sample.pred_instances = InstanceData(**found)


def noisy_map(sample, rng):
    """The true map with stripes of other classes."""
    truth = sample.gt_sem_seg.data
    number = int(truth[truth != 255].max()) + 1
    guess = truth.clone()
    guess[guess == 255] = 0
    for y in range(0, guess.shape[1], 7):
        guess[:, y : y + 2] = int(rng.integers(0, number))
    sample.pred_sem_seg = PixelData(data=guess)


def noisy_class(count):
    """What gives most images their class, among so many."""

    def predict(sample, rng):
        scores = rng.random(count)
        scores[int(sample.gt_label)] += 0.6
        scores = torch.tensor(scores / scores.sum(), dtype=torch.float32)
        sample.set_pred_score(scores).set_pred_label(scores.argmax())

    return predict


def read_rows(folder):
    with (folder / 'per_class.csv').open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))
