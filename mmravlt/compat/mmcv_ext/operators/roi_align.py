"""RoIAlign and its gradient, as `mmcv/ops/roi_align.py` calls them."""

import torch

from .common import compute_dtype, torchvision_ops

OPERATORS = 'roi_align_forward', 'roi_align_backward'


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
    dtype = compute_dtype(input, rois)
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
        torchvision_ops().roi_align(
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
    dtype = compute_dtype(grad_output, rois)
    grad, rois = grad_output.to(dtype), rois.to(dtype)
    if pool_mode == 0:
        grad_input.copy_(
            _roi_max_backward(grad, rois, argmax_y, argmax_x, grad_input.shape)
        )
        return
    grad_input.copy_(
        torchvision_ops()._roi_align_backward(
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
