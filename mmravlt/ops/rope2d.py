"""Two-dimensional rotary position embedding (RoPE) as RAVLT's release computes it.

The frequencies are ``10000 ** -linspace(0, 1, d / 4)``, both ends included.
Other models divide by the count instead (``arange(k) / k``); with those
frequencies the released weights give wrong results without any error.

Origin: RoFormer, https://arxiv.org/abs/2104.09864 (the rotation), and RAVLT,
https://arxiv.org/abs/2411.07635 (its use on queries and keys).
"""

import torch
from torch import Tensor

from .runtime import at_least_float32, is_recording

Rope = tuple[Tensor, Tensor]

_tables: dict[tuple, Rope] = {}
_MOST_TABLES = 8  # four stages at two sizes


def rope2d_angles(
    head_dim: int,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rotation per step of one row or column, in radians.

    Args:
        head_dim (int): channels d of one head, a multiple of 4.
        device: where the result is made.
        dtype (torch.dtype): of the result.

    Returns:
        Tensor: shape (d / 2,). Each frequency stands twice in a row, once for each
        channel of the pair that it rotates.
    """
    exponent = torch.linspace(0, 1, head_dim // 4, device=device, dtype=dtype)
    return (1.0 / 10000**exponent).repeat_interleave(2)


def rope2d_table(
    height: int,
    width: int,
    head_dim: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Rope:
    """Cosines and sines for every row and column of a map, kept for the next call.

    Args:
        height (int): rows H of the map.
        width (int): columns W of the map.
        head_dim (int): channels d of one head, a multiple of 4.
        device (torch.device): where the tables live.
        dtype (torch.dtype): of what they rotate.

    Returns:
        tuple[Tensor, Tensor]: for the rows, of shape (H, d / 4, 2), and for the
        columns, (W, d / 4, 2); the last axis holds cosine and sine of one pair's
        angle. They are float64 for float64, and float32 for all other types: in half
        precision the angles are wrong by 0.1 rad and more within a few hundred
        columns.
    """
    key = (height, width, head_dim, device, torch.promote_types(dtype, torch.float32))
    if is_recording() or key not in _tables:
        rope = _make_table(*key)
        # While a model is traced, tensors are symbols that nobody else can use.
        if is_recording() or type(rope[0]) is not Tensor:
            return rope
        while len(_tables) >= _MOST_TABLES:
            _tables.pop(next(iter(_tables)))
        _tables[key] = rope
    return _tables[key]


def _make_table(
    height: int, width: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> Rope:
    # A table made under inference_mode could not be used for training later.
    with torch.inference_mode(False), torch.no_grad():
        angles = rope2d_angles(head_dim, device, dtype)[::2]
        steps = (
            torch.arange(size, device=device, dtype=dtype) for size in (height, width)
        )
        turns = (step[:, None] * angles for step in steps)
        rows, columns = (torch.stack((t.cos(), t.sin()), dim=-1) for t in turns)
        return rows, columns


def rope2d_rotate(x: Tensor, rope: Rope, inverse: bool = False) -> Tensor:
    """Rotate neighbouring channels of every token by its position's angle.

    Pairs are channels (0, 1), (2, 3), …; with c, s the pair's cosine and
    sine, ``(x0, x1) -> (x0 c - x1 s, x1 c + x0 s)``. The first d / 4 pairs turn
    with the row index, the last d / 4 with the column index.

    Args:
        x (Tensor): queries or keys, shape (…, N, d), with N = H * W tokens in
            row-major order.
        rope (tuple[Tensor, Tensor]): from :func:`rope2d_table`.
        inverse (bool): turn back instead, by the negative angle.

    Returns:
        Tensor: the shape and type of ``x``, computed at least in float32.
    """
    rows, columns = rope
    if inverse:
        rows, columns = (each * each.new_tensor((1, -1)) for each in rope)
    height, width = rows.shape[0], columns.shape[0]
    exact = at_least_float32(x)
    turn = torch.cat(
        [
            rows[:, None].expand(-1, width, -1, -1),
            columns[None].expand(height, -1, -1, -1),
        ],
        dim=-2,
    ).flatten(0, 1)  # N, d / 2, 2
    if exact.stride(-1) != 1 or any(stride % 2 for stride in exact.stride()[:-1]):
        exact = exact.contiguous()  # or its pairs are no complex numbers
    pairs = exact.unflatten(-1, (-1, 2))
    if is_recording():
        # Compilers and exporters know no complex numbers.
        (x0, x1), (cosine, sine) = pairs.unbind(-1), turn.unbind(-1)
        rotated = torch.stack((x0 * cosine - x1 * sine, x1 * cosine + x0 * sine), -1)
    else:
        # A rotation is one product of complex numbers, a single pass.
        product = torch.view_as_complex(pairs) * torch.view_as_complex(turn)
        rotated = torch.view_as_real(product)
    return rotated.flatten(-2).to(x.dtype)
