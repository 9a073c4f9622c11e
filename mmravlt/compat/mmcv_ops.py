"""A stand-in for mmcv's compiled operators, `mmcv._ext`, where it is not usable.

mmdet imports `mmcv.ops`, and every module there asks `mmcv._ext` for its
operators at import. mmcv-lite and onedl-mmcv built as pure Python do not have that
extension, and one built for another torch is found but does not load; either
way `import mmdet` fails. `install()` then puts a module in its place which

- computes the operators in `STAND_INS` with torchvision and PyTorch, on CPU and
  GPU and with fp16 and bf16 inputs, with the results of the compiled ones;
- answers every other name with a function that raises when it is called.

A compiled extension that loads is always left alone. Signatures are those with
which mmcv's Python wrappers (`mmcv/ops/nms.py`, `roi_align.py`,
`focal_loss.py`) call the extension: results go into buffers that the caller
passes, except that `nms` and `softnms` return indices.
"""

import importlib
import importlib.util
import logging
import multiprocessing
import os
import sys
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

EXT = 'mmcv._ext'
FIX = (
    f'install an mmcv with compiled ops, built for torch {torch.__version__} '
    '(`mim install mmcv`, or from source); `python -m mmravlt doctor` tells more'
)


# --------------------------------------------------------------------- operators


def _torchvision():
    """torchvision's compiled operators, or a RuntimeError that says what to do.

    Imported at the first call, so that a torchvision which does not fit torch
    breaks only what needs it.
    """
    try:
        import torchvision  # noqa: F401  registers the operators

        ops = torch.ops.torchvision
        _ = ops.nms, ops.roi_align, ops._roi_align_backward
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RuntimeError(
            'nms and roi_align need torchvision, which does not load '
            f'({error}); install the torchvision release that belongs to '
            f'torch {torch.__version__}, or {FIX}'
        ) from error
    return ops


def _compute_dtype(*tensors):
    """float64 if a tensor has it, else float32.

    fp16 and bf16 are computed in fp32: torchvision lacks bf16 kernels for
    roi_align's backward and half ones for nms on CPU, and 16 bits do not hold
    pixel coordinates of common image sizes.
    """
    wide = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


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
    dtype = _compute_dtype(boxes, scores)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares with a float32 threshold, torchvision with a float64 one
    return _torchvision().nms(boxes, scores, float(np.float32(iou_threshold)))


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


def roi_align_forward(
    input,
    rois,
    output,
    argmax_y,
    argmax_x,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """RoIAlign (He et al., 2017, arXiv:1703.06870): average or maximum per bin.

    Args:
        input (Tensor): B×C×H×W features.
        rois (Tensor): N×5, (image index, x1, y1, x2, y2) in image pixels; its
            dtype may differ from that of `input`.
        output (Tensor): N×C×aligned_height×aligned_width buffer for the result.
        argmax_y, argmax_x (Tensor): like `output` with the maximum, else empty;
            filled with the place, in feature cells, each maximum was sampled
            at, or -1 where a bin has no sample.
        aligned_height, aligned_width (int): bins per RoI.
        spatial_scale (float): feature cells per image pixel.
        sampling_ratio (int): samples per bin and axis; 0 takes
            ceil(RoI size / bins) of them, each RoI its own.
        pool_mode (int): 0 for the maximum, 1 for the average
            (`torchvision.ops.roi_align`).
        aligned (bool): shift by half a cell, so that cell centres are where the
            image has them; without it RoIs are at least one cell large.

    Raises:
        RuntimeError: average, and torchvision does not load.
    """
    dtype = _compute_dtype(input, rois)
    features, rois = input.to(dtype), rois.to(dtype)
    if pool_mode == 0:
        _roi_max(
            features,
            rois,
            (output, argmax_y, argmax_x),
            spatial_scale,
            sampling_ratio,
            aligned,
        )
        return
    output.copy_(
        _torchvision().roi_align(
            features,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output,
    rois,
    argmax_y,
    argmax_x,
    grad_input,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Gradient of RoIAlign with respect to its features.

    On GPU the average refuses `torch.use_deterministic_algorithms(True)`, as
    torchvision's own roi_align backward does.

    Args:
        grad_output (Tensor): N×C×aligned_height×aligned_width.
        argmax_y, argmax_x (Tensor): as `roi_align_forward` filled them.
        grad_input (Tensor): B×C×H×W buffer for the result.
        rois, aligned_height, aligned_width, spatial_scale, sampling_ratio,
            pool_mode, aligned: as in `roi_align_forward`.

    Raises:
        RuntimeError: average, and torchvision does not load.
    """
    dtype = _compute_dtype(grad_output, rois)
    grad, rois = grad_output.to(dtype), rois.to(dtype)
    if pool_mode == 0:
        grad_input.copy_(
            _roi_max_backward(grad, rois, argmax_y, argmax_x, grad_input.shape)
        )
        return
    grad_input.copy_(
        _torchvision()._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _roi_axis(low, high, bins, spatial_scale, sampling_ratio, aligned):
    """Where one axis of N RoIs is sampled.

    Returns:
        tuple: start and bin size in feature cells, and samples per bin (all N).
    """
    shift = 0.5 if aligned else 0.0
    start = low * spatial_scale - shift
    size = high * spatial_scale - shift - start
    if not aligned:
        size = size.clamp(min=1)
    bin_size = size / bins
    if sampling_ratio > 0:
        return start, bin_size, torch.full_like(start, sampling_ratio)
    return start, bin_size, bin_size.ceil()


def _corners(y, x, height, width):
    """The four cells around each point and their bilinear weights.

    Args:
        y, x (Tensor): feature cells; shapes broadcast to S.
        height, width (int): size of the feature map.

    Yields:
        tuple: index y * width + x of a cell (int64, S) and its weight (S), which
        is 0 for points more than one cell outside the map.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    y_low, x_low = y.floor(), x.floor()
    y_part, x_part = y - y_low, x - x_low
    y_low, x_low = y_low.long(), x_low.long()
    y_high = (y_low + 1).clamp(max=height - 1)
    x_high = (x_low + 1).clamp(max=width - 1)
    for row, row_weight in ((y_low, 1 - y_part), (y_high, y_part)):
        for col, col_weight in ((x_low, 1 - x_part), (x_high, x_part)):
            yield row * width + col, row_weight * col_weight * inside


def _roi_max(features, rois, buffers, spatial_scale, sampling_ratio, aligned):
    """RoIAlign with the maximum, into (output, argmax_y, argmax_x).

    Walks over the samples of a bin, all RoIs that have such a sample at once:
    memory stays near the size of the output however large the RoIs are. The
    first of equal samples wins, as in mmcv.
    """
    n, channels, rows, cols = buffers[0].shape
    height, width = features.shape[2:]
    options = spatial_scale, sampling_ratio, aligned
    y_start, y_bin, y_grid = _roi_axis(rois[:, 2], rois[:, 4], rows, *options)
    x_start, x_bin, x_grid = _roi_axis(rois[:, 1], rois[:, 3], cols, *options)
    row = torch.arange(rows, device=rois.device)
    col = torch.arange(cols, device=rois.device)
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels)
    image = (rois[:, 0].long() * height * width)[:, None, None]

    # What a bin without samples gets from mmcv's CPU and GPU kernels
    on_cpu = features.device.type == 'cpu'
    lowest = -10000.0 if on_cpu else torch.finfo(torch.float32).min
    best = cells.new_full((n, rows, cols, channels), lowest)
    best_y, best_x = torch.full_like(best, -1), torch.full_like(best, -1)
    for i in range(int(y_grid.max()) if n else 0):
        for j in range(int(x_grid.max())):
            live = torch.nonzero((y_grid > i) & (x_grid > j)).flatten()
            # [live, 1] + bins: coordinates of sample (i, j) in every bin
            ys, yb = y_start[live, None], y_bin[live, None]
            xs, xb = x_start[live, None], x_bin[live, None]
            y = ys + row * yb + (i + 0.5) * yb / y_grid[live, None]
            x = xs + col * xb + (j + 0.5) * xb / x_grid[live, None]
            y, x = y[:, :, None], x[:, None, :]
            value = sum(
                weight[..., None] * cells[image[live] + cell]
                for cell, weight in _corners(y, x, height, width)
            )
            old = best[live]
            more = value > old
            best[live] = torch.where(more, value, old)
            best_y[live] = torch.where(more, y[..., None], best_y[live])
            best_x[live] = torch.where(more, x[..., None], best_x[live])
    for buffer, result in zip(buffers, (best, best_y, best_x), strict=True):
        buffer.copy_(result.permute(0, 3, 1, 2))


def _roi_max_backward(grad, rois, argmax_y, argmax_x, shape):
    """Spreads each bin's gradient over the four cells its maximum came from."""
    batch, channels, height, width = shape
    y, x = argmax_y.to(grad.dtype), argmax_x.to(grad.dtype)
    grad = grad * (y != -1)  # bins without a sample
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    plane = (plane * height * width)[:, :, None, None]
    result = grad.new_zeros(batch * channels * height * width)
    for cell, weight in _corners(y, x, height, width):
        result.index_add_(0, (plane + cell).flatten(), (grad * weight).flatten())
    return result.view(shape)


def _focal_terms(input, target, weight, gamma, alpha):
    """What loss and gradient share, all in fp32 (fp64 for fp64 logits).

    With z = x for the class of the label and z = -x for the others, both cases
    are one formula: loss = -a (1 - p)^gamma log p with p = sigmoid(z).

    Returns:
        tuple: z / x, 1 - p, log p, and a (1 - p)^gamma times the class weight;
        all N×C.
    """
    x = input.to(_compute_dtype(input))
    classes = torch.arange(x.shape[1], device=x.device)
    positive = target[:, None] == classes
    sign = positive.to(x.dtype) * 2 - 1
    z = x * sign
    rest = torch.sigmoid(-z)  # exact where 1 - sigmoid(z) would round to 0
    scale = torch.where(positive, alpha, 1 - alpha).to(x.dtype) * rest.pow(gamma)
    if weight.numel():
        # background, a label equal to C, has no entry in weight
        known = (target >= 0) & (target < x.shape[1])
        of_label = weight.to(x.dtype)[target.clamp(0, x.shape[1] - 1)]
        scale = scale * torch.where(known, of_label, 1)[:, None]
    return sign, rest, F.logsigmoid(z), scale


def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    """Focal loss of C sigmoids (Lin et al., 2017, arXiv:1708.02002), unreduced.

    With p = sigmoid(x): -alpha (1 - p)^gamma log p for the class of the label,
    -(1 - alpha) p^gamma log(1 - p) for all others. The logarithms are computed
    from x. mmcv's kernel takes them of p and 1 - p, rounded, and raised to the
    smallest normal number where they are less: in fp32 its log(1 - p) is -87 for
    every x > 17. There, and for x < -87, this differs from mmcv and is exact.

    Args:
        input (Tensor): N×C logits x.
        target (Tensor): N int64 labels; C, or any other label that is not a
            class, is background.
        weight (Tensor): C factors by the label's class, or empty. Background has
            factor 1.
        output (Tensor): N×C buffer for the loss.
        gamma, alpha (float): focusing and balance parameters.
    """
    _, _, log_p, scale = _focal_terms(input, target, weight, gamma, alpha)
    output.copy_(-scale * log_p)


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    """Gradient of the sum of `sigmoid_focal_loss_forward` with respect to x.

    In the notation of `_focal_terms`,
    d loss / dz = -a (1 - p)^gamma (1 - p - gamma p log p).

    Args:
        grad_input (Tensor): N×C buffer for the gradient.
        input, target, weight, gamma, alpha: as in the forward.
    """
    sign, rest, log_p, scale = _focal_terms(input, target, weight, gamma, alpha)
    grad_input.copy_(-sign * scale * (rest - gamma * log_p.exp() * log_p))


def get_compiler_version():
    """What mmcv's environment report prints as its C++ compiler."""
    return 'n/a'


def get_compiling_cuda_version():
    """What mmcv's environment report prints as its CUDA compiler."""
    return 'n/a'


STAND_INS = {
    function.__name__: function
    for function in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


def _unsupported(name):
    def op(*args, **kwargs):
        raise NotImplementedError(
            f"mmcv's compiled op '{name}' was called, but the mmcv of this "
            f'environment has no compiled ops that load: {FIX}.'
        )

    op.__name__ = op.__qualname__ = name
    return op


# ------------------------------------------------------------------ installation


@dataclass(frozen=True)
class Status:
    """What became of `mmcv._ext`.

    Attributes:
        real (bool): the compiled extension is loaded.
        reason (str): why it is not; empty if it is.
        broken (bool): it is there, but does not load.
        stand_ins (tuple[str]): operators that the stand-in computes; empty
            where none is used: with real ones, or without mmcv.
    """

    real: bool
    reason: str = ''
    broken: bool = False
    stand_ins: tuple = ()


class _StandIn(ModuleType):
    """The module: holds `STAND_INS` and answers any other public name."""

    def __getattr__(self, name):
        # Python and its tools probe modules for names with an underscore
        # (`__path__`, `_ipython_display_`), which no op has
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        return _unsupported(name)


class _Finder(MetaPathFinder, Loader):
    """Finds `mmcv._ext` and loads the stand-in for it.

    Stands before Python's own finders: they would find an extension that does
    not load. `install` has made sure that there is no other.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != EXT:
            return None
        return ModuleSpec(fullname, self, origin=__name__)

    def create_module(self, spec):
        return _StandIn(spec.name, 'Stand-in of mmravlt for compiled mmcv ops.')

    def exec_module(self, module):
        vars(module).update(STAND_INS)


_status = None


def _probe():
    """Really imports `mmcv._ext`; that a finder finds it says little."""
    if importlib.util.find_spec('mmcv') is None:
        return Status(False, 'mmcv is not installed')
    try:
        importlib.import_module('mmcv')
    except Exception as error:  # its own problem; whoever imports it sees it
        return Status(False, f'mmcv does not import: {error}')
    names = tuple(STAND_INS)
    try:
        importlib.import_module(EXT)
    except Exception as error:  # a loader may raise anything, e.g. RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name == EXT:
            return Status(False, f'{EXT} is missing', stand_ins=names)
        reason = f'{EXT} does not load: {" ".join(str(error).split())}'
        return Status(False, reason, broken=True, stand_ins=names)
    return Status(True)


def status():
    """What became of `mmcv._ext`; installs nothing.

    Returns:
        Status: as found before a stand-in was installed.
    """
    return _status or _probe()


def install():
    """Puts the stand-in in the place of a missing or broken `mmcv._ext`.

    Call it before mmdet or `mmcv.ops` are first imported. Does nothing when the
    real extension loads, when mmcv is not installed, or the second time. Says
    what it did in one line, in the main process only.

    Returns:
        bool: True if the stand-in is in use.
    """
    global _status
    if _status is None:
        found = _probe()
        if found.stand_ins:
            sys.meta_path.insert(0, _Finder())
            importlib.import_module(EXT)
        _status = found
        if found.stand_ins:
            _announce(found)
    return bool(_status.stand_ins)


def _announce(found):
    """One line, not repeated by other ranks or by dataloader workers."""
    is_worker = multiprocessing.parent_process() is not None
    if is_worker or os.environ.get('LOCAL_RANK', '0') != '0':
        return
    text = (
        f'{found.reason}; nms, roi_align and focal loss run through torchvision '
        'and PyTorch instead, other ops of mmcv raise when called'
    )
    if found.broken:
        # Somebody meant to have compiled ops: to be seen in every setting
        logging.getLogger('mmravlt').warning('%s. To fix it, %s', text, FIX)
    else:
        from mmengine.logging import print_log

        print_log(text, logger='current')
