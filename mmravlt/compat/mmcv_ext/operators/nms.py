"""Non-maximum suppression, as `mmcv/ops/nms.py` calls it."""

import numpy as np
import torch

from .common import compute_dtype, torchvision_ops

OPERATORS = 'nms', 'softnms'


def nms(boxes, scores, iou_threshold, offset=0):
    """Greedy non-maximum suppression (`torchvision.ops.nms`).

    Args:
        boxes (Tensor): N×4, (x1, y1, x2, y2) in pixels.
        scores (Tensor): N.
        iou_threshold (float): a box goes if its IoU with a kept one is greater.
        offset (int): 0, or 1 where x2 and y2 belong to the box: its width is
            then x2 - x1 + 1.

    Returns:
        Tensor: int64 indices of the kept boxes, highest score first.

    Raises:
        RuntimeError: torchvision does not load.
    """
    dtype = compute_dtype(boxes, scores)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares with a float32 threshold, torchvision with a float64 one
    return torchvision_ops().nms(boxes, scores, float(np.float32(iou_threshold)))


def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset=0):
    """Soft-NMS (Bodla et al., 2017, arXiv:1704.04503), in mmcv's order.

    Step i takes the box with the highest score among positions i, i + 1, ...
    (the first of equals) and swaps it to position i. The scores s of the boxes
    behind it decay with their overlap o with it:

    - 0, naive: s = 0 where o >= iou_threshold;
    - 1, linear: s = s (1 - o) where o >= iou_threshold;
    - 2, gaussian: s = s exp(-o² / sigma).

    Boxes whose score falls below min_score are removed; each hole is filled
    from the end of the list, which decides the order of later ties.

    Args:
        boxes (Tensor): N×4, (x1, y1, x2, y2) in pixels.
        scores (Tensor): N.
        dets (Tensor): N×5 buffer; its first M rows are filled with the surviving
            boxes and their decayed scores.
        iou_threshold, sigma, min_score (float): as above.
        method (int): 0, 1 or 2.
        offset (int): added to widths and heights, 0 or 1.

    Returns:
        Tensor: M int64 indices of the surviving boxes, in the order of `dets`.
    """
    # A step per box of a few small operations: NumPy spends less on each than
    # PyTorch. Columns: x1, y1, x2, y2, score, area.
    table = torch.cat([boxes.float(), scores.float()[:, None]], 1)
    table = table.detach().cpu().numpy()
    width, height = table[:, 2] - table[:, 0], table[:, 3] - table[:, 1]
    area = (width + offset) * (height + offset)
    table = np.column_stack([table, area])
    index = np.arange(len(table))
    size, i = len(table), 0
    while i < size:
        best = i + int(table[i:size, 4].argmax())
        table[[i, best]] = table[[best, i]]
        index[[i, best]] = index[[best, i]]
        first, rest = table[i], table[i + 1 : size]
        sides = np.minimum(first[2:4], rest[:, 2:4])
        sides = sides - np.maximum(first[:2], rest[:, :2]) + np.float32(offset)
        inter = np.maximum(sides, 0).prod(1)
        with np.errstate(divide='ignore', invalid='ignore'):  # boxes without area
            overlap = inter / (first[5] + rest[:, 5] - inter)
        if method == 2:
            weight = np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            decayed = np.float32(0) if method == 0 else 1 - overlap
            hit = overlap >= np.float32(iou_threshold)
            weight = np.where(hit, decayed, np.float32(1))
        rest[:, 4] *= weight
        # not `score >= min_score`: a score that is not a number stays, as in mmcv
        keep = ~(rest[:, 4] < np.float32(min_score))
        kept = int(keep.sum())
        if kept < len(rest):
            holes = np.flatnonzero(~keep[:kept])
            fillers = kept + np.flatnonzero(keep[kept:])[::-1]
            rest[holes] = rest[fillers]
            rest_index = index[i + 1 : size]
            rest_index[holes] = rest_index[fillers]
            size = i + 1 + kept
        i += 1
    dets[:size] = torch.from_numpy(table[:size, :5]).to(dets)
    return torch.from_numpy(index[:size]).to(boxes.device)
