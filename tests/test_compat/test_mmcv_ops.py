"""The stand-in's operators on boxes, against compiled mmcv and themselves."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmravlt.compat.mmcv_ext.operators.nms import nms as stand_in_nms
from mmravlt.compat.mmcv_ext.operators.nms import softnms
from tests.test_compat.operators import (
    DEVICES,
    HALVES,
    error,
    needs_stand_in,
    on_devices,
)

# What compiled mmcv ops computed on CPU. Parameters of that recording: IoU
# threshold 0.5 for nms and batched_nms; for `thr_max` also score_threshold 0.3 and
# max_num 5; soft_nms with mmcv's defaults (iou_threshold 0.3, sigma 0.5,
# min_score 1e-3); roi_align with spatial_scale 0.25.
with np.load(Path(__file__).parents[1] / 'data/mmcv_ops.npz') as archive:
    RECORDED = {name: torch.from_numpy(archive[name]) for name in archive.files}

COUNTS = (1, 7, 200)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_ops_are_tested_on_a_gpu_too():
    assert 'cuda' in DEVICES


def boxes_of(count, device):
    names = ('boxes', 'scores', 'ids')
    return [RECORDED[f'nms{count}_{name}'].to(device) for name in names]


# ------------------------------------------------------- equal to compiled mmcv


def test_every_recorded_case_is_compared():
    used = {f'nms{n}_{name}' for n in COUNTS for name in ('boxes', 'scores', 'ids')}
    used |= {f'nms{n}_offset{offset}_keep' for n in COUNTS for offset in (0, 1)}
    used |= {f'nms{n}_thr_max_keep' for n in COUNTS}
    used |= {f'batched{n}_keep' for n in COUNTS}
    used |= {
        f'softnms{n}_{method}_offset{offset}_{what}'
        for n in COUNTS
        for method in ('naive', 'linear', 'gaussian')
        for offset in (0, 1)
        for what in ('dets', 'keep')
    }
    used |= {'roi_input', 'roi_rois'}
    used |= {
        f'roi_{pool}_size{size}_sr{ratio}_aligned{aligned}_{what}'
        for pool in ('avg', 'max')
        for size in (7, 14)
        for ratio in (0, 2)
        for aligned in (0, 1)
        for what in ('out', 'w', 'grad')
    }
    assert used == set(RECORDED)


@on_devices
@pytest.mark.parametrize('offset', (0, 1))
@pytest.mark.parametrize('count', COUNTS)
def test_nms_keeps_what_compiled_mmcv_keeps(count, offset, device):
    from mmcv.ops import nms

    boxes, scores, _ = boxes_of(count, device)
    dets, keep = nms(boxes, scores, 0.5, offset=offset)
    assert keep.tolist() == RECORDED[f'nms{count}_offset{offset}_keep'].tolist()
    assert torch.equal(dets, torch.cat([boxes[keep], scores[keep, None]], 1))


@on_devices
@pytest.mark.parametrize('count', COUNTS)
def test_nms_with_score_threshold_and_max_num(count, device):
    from mmcv.ops import nms

    boxes, scores, _ = boxes_of(count, device)
    _, keep = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)
    assert keep.tolist() == RECORDED[f'nms{count}_thr_max_keep'].tolist()


@on_devices
def test_nms_keeps_a_box_whose_iou_is_the_threshold_in_float32(device):
    from mmcv.ops import nms

    # IoU 3 / 10, which float32 rounds to more than the float64 number 0.3
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]], device=device)
    _, keep = nms(boxes, torch.tensor([0.9, 0.8], device=device), 0.3)
    assert keep.tolist() == [0, 1]


@on_devices
@pytest.mark.parametrize('count', COUNTS)
def test_batched_nms_keeps_what_compiled_mmcv_keeps(count, device):
    from mmcv.ops import batched_nms

    boxes, scores, ids = boxes_of(count, device)
    _, keep = batched_nms(boxes, scores, ids, dict(type='nms', iou_threshold=0.5))
    assert keep.tolist() == RECORDED[f'batched{count}_keep'].tolist()


@on_devices
@pytest.mark.parametrize('offset', (0, 1))
@pytest.mark.parametrize('method', ('naive', 'linear', 'gaussian'))
@pytest.mark.parametrize('count', COUNTS)
def test_soft_nms_equals_compiled_mmcv(count, method, offset, device):
    from mmcv.ops import soft_nms

    boxes, scores, _ = boxes_of(count, device)
    dets, keep = soft_nms(boxes, scores, method=method, offset=offset)
    name = f'softnms{count}_{method}_offset{offset}'
    assert keep.tolist() == RECORDED[f'{name}_keep'].tolist()
    expected = RECORDED[f'{name}_dets']
    assert torch.equal(dets[:, :4].cpu(), expected[:, :4])
    assert error(dets[:, 4], expected[:, 4]) <= 1e-6


@on_devices
@pytest.mark.parametrize('aligned', (0, 1))
@pytest.mark.parametrize('ratio', (0, 2))
@pytest.mark.parametrize('size', (7, 14))
@pytest.mark.parametrize('pool', ('avg', 'max'))
def test_roi_align_and_its_gradient_equal_compiled_mmcv(
    pool, size, ratio, aligned, device
):
    from mmcv.ops import roi_align

    features = RECORDED['roi_input'].to(device, copy=True).requires_grad_()
    rois = RECORDED['roi_rois'].to(device)
    name = f'roi_{pool}_size{size}_sr{ratio}_aligned{aligned}'
    out = roi_align(features, rois, size, 0.25, ratio, pool, bool(aligned))
    (out * RECORDED[f'{name}_w'].to(device)).sum().backward()
    # A GPU rounds sample positions otherwise (fused multiply-add)
    tolerance = 1e-6 if device == 'cpu' else 1e-5
    assert error(out, RECORDED[f'{name}_out']) <= tolerance
    assert error(features.grad, RECORDED[f'{name}_grad']) <= tolerance


# ----------------------------------------------------------- soft-NMS, in words


def soft_nms_one_by_one(boxes, scores, iou_threshold, sigma, min_score, method):
    """mmcv's order of steps, one box after the other, in float32 as there."""
    pairs = zip(boxes.numpy(), scores.numpy(), strict=True)
    rows = [[*box, score, index] for index, (box, score) in enumerate(pairs)]
    done = 0
    while done < len(rows):
        best = max(range(done, len(rows)), key=lambda k: (rows[k][4], -k))
        rows[done], rows[best] = rows[best], rows[done]
        a, k = rows[done], done + 1
        while k < len(rows):
            b = rows[k]
            width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
            height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
            areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
            overlap = width * height / (areas[0] + areas[1] - width * height)
            if method == 2:
                b[4] *= np.exp(-(overlap * overlap) / np.float32(sigma))
            elif overlap >= np.float32(iou_threshold):
                b[4] *= np.float32(1) - overlap if method == 1 else np.float32(0)
            if b[4] < np.float32(min_score):
                last = rows.pop()
                if last is not b:
                    rows[k] = last
            else:
                k += 1
        done += 1
    return rows


@pytest.mark.parametrize('method', (0, 1, 2))
@pytest.mark.parametrize('seed', range(3))
def test_soft_nms_orders_ties_and_removals_as_one_box_after_the_other(seed, method):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 12, (60, 2), generator=generator).float()
    size = torch.randint(3, 9, (60, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + size], 1)
    # few distinct scores, many below min_score after one decay
    scores = torch.randint(1, 6, (60,), generator=generator).float() / 8
    dets = torch.full((60, 5), -7.0)
    args = 0.31, 0.43, 0.123, method
    keep = softnms(boxes, scores, dets, *args)
    expected = soft_nms_one_by_one(boxes, scores, *args)
    assert 1 < len(expected) < 60
    assert keep.tolist() == [row[5] for row in expected]
    assert dets[: len(keep), 4].tolist() == pytest.approx(
        [row[4] for row in expected], rel=1e-5
    )
    assert (dets[len(keep) :] == -7).all()


# ------------------------------------------------------------- half precision


@needs_stand_in
@on_devices
@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('mixed', (False, True))
def test_nms_of_halves_equals_nms_of_their_values(dtype, mixed, device):
    from mmcv.ops import nms

    boxes, scores, _ = boxes_of(200, device)
    boxes = boxes.to(dtype)
    scores = scores if mixed else scores.to(dtype)
    dets, keep = nms(boxes, scores, 0.5)
    _, expected = nms(boxes.float(), scores.float(), 0.5)
    assert keep.tolist() == expected.tolist()
    assert dets.dtype == torch.promote_types(boxes.dtype, scores.dtype)


@needs_stand_in
@on_devices
@pytest.mark.parametrize('dtype', HALVES)
def test_soft_nms_of_halves_keeps_dtype(dtype, device):
    from mmcv.ops import soft_nms

    boxes, scores, _ = (t.to(dtype) for t in boxes_of(200, device))
    dets, keep = soft_nms(boxes, scores)
    expected, expected_keep = soft_nms(boxes.float(), scores.float())
    assert keep.tolist() == expected_keep.tolist()
    assert dets.dtype == dtype
    assert error(dets.float(), expected.cpu()) <= torch.finfo(dtype).eps


@needs_stand_in
@on_devices
@pytest.mark.parametrize('rois_dtype', ('same', 'float32'))
@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('pool', ('avg', 'max'))
def test_roi_align_of_halves_is_the_rounded_float32_result(
    pool, dtype, rois_dtype, device
):
    from mmcv.ops import roi_align

    rois = RECORDED['roi_rois'].to(device, dtype)
    if rois_dtype == 'float32':
        rois = RECORDED['roi_rois'].to(device)
    half = RECORDED['roi_input'].to(device, dtype, copy=True).requires_grad_()
    full = half.detach().float().requires_grad_()
    out = roi_align(half, rois, 7, 0.25, 0, pool)
    expected = roi_align(full, rois.float(), 7, 0.25, 0, pool)
    assert out.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert error(out, expected.detach().cpu()) <= eps
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    weight = weight.to(device, dtype)
    (out * weight).sum().backward()
    (expected * weight.float()).sum().backward()
    assert half.grad.dtype == dtype
    # mmcv keeps the place of a maximum in the features' dtype: half a unit of a
    # coordinate up to 32 shifts weight between neighbouring cells
    tolerance = eps if pool == 'avg' else 32 * eps
    assert error(half.grad, full.grad.cpu()) <= tolerance


@needs_stand_in
@pytest.mark.parametrize('pool', ('avg', 'max'))
def test_roi_align_works_under_cpu_autocast(pool):
    from mmcv.ops import roi_align

    features = RECORDED['roi_input'].bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        out = roi_align(features, RECORDED['roi_rois'], 7, 0.25, 0, pool)
        out.float().sum().backward()
    assert out.dtype == features.grad.dtype == torch.bfloat16
    expected = roi_align(
        features.detach().float(), RECORDED['roi_rois'], 7, 0.25, 0, pool
    )
    assert error(out, expected) <= torch.finfo(torch.bfloat16).eps


# --------------------------------------------------------------- nothing to do


@needs_stand_in
@on_devices
def test_no_boxes_give_no_detections(device):
    from mmcv.ops import nms, soft_nms

    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    for dets, keep in (nms(boxes, scores, 0.5), soft_nms(boxes, scores)):
        assert dets.shape == (0, 5)
        assert keep.shape == (0,)
        assert keep.dtype == torch.int64


@needs_stand_in
@on_devices
@pytest.mark.parametrize('pool', ('avg', 'max'))
def test_zero_rois_give_zero_gradients(pool, device):
    from mmcv.ops import roi_align

    features = torch.randn(2, 3, 9, 11, device=device, requires_grad=True)
    out = roi_align(features, features.new_zeros(0, 5), (7, 5), 0.25, 0, pool)
    assert out.shape == (0, 3, 7, 5)
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


@needs_stand_in
@pytest.mark.parametrize('pool, value', (('avg', 0.0), ('max', -10000.0)))
def test_rois_without_area_have_no_samples_and_no_gradient(pool, value):
    from mmcv.ops import roi_align

    features = torch.ones(1, 1, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 3, 3, 3, 3], [0, 1, 1, 5, 5]])
    out = roi_align(features, rois, 2, 1.0, 0, pool)
    out.sum().backward()
    assert out[0].flatten().tolist() == [value] * 4
    assert out[1].flatten().tolist() == [1.0] * 4
    assert float(features.grad.sum()) == pytest.approx(4)


@needs_stand_in
def test_max_pooling_skips_rois_that_leave_the_image():
    from mmcv.ops import roi_align

    features = torch.full((1, 1, 6, 6), -1.0, requires_grad=True)
    rois = torch.tensor([[0.0, 20, 20, 24, 24]])
    out = roi_align(features, rois, 2, 1.0, 1, 'max')
    out.sum().backward()
    assert out.flatten().tolist() == [0.0] * 4  # outside counts as 0
    assert not features.grad.any()


def test_a_broken_torchvision_is_named_when_an_op_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(RuntimeError, match='torchvision, which does not load'):
        stand_in_nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
