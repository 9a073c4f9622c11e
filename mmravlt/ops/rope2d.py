"""Two-dimensional rotary position embedding (RoPE) as RAVLT's release computes it.

The frequencies are ``10000 ** -linspace(0, 1, d / 4)``, both ends included.
Other models divide by the count instead (``arange(k) / k``); with those
frequencies the released weights give wrong results without any error.

Origin: RoFormer, https://arxiv.org/abs/2104.09864 (the rotation), and RAVLT,
https://arxiv.org/abs/2411.07635 (its use on queries and keys).
"""

import torch
from torch import Tensor

Table = tuple[Tensor, Tensor]

# torch 2.1 cannot tell yet whether it compiles.
_is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)

_tables: dict[tuple, Table] = {}
_MOST_TABLES = 8  # four stages at two sizes; tens of megabytes for large images


def rope2d_angles(head_dim: int, device: torch.device | str = 'cpu') -> Tensor:
    """Rotation per step of one row or column, in radians.

    Args:
        head_dim (int): channels d of one head, a multiple of 4.
        device: where the result is made.

    Returns:
        Tensor: float32, shape (d / 2,). Each frequency stands twice in a row,
        once for each channel of the pair that it rotates.
    """
    exponent = torch.linspace(0, 1, head_dim // 4, device=device, dtype=torch.float32)
    return (1.0 / 10000**exponent).repeat_interleave(2)


def rope2d_table(height: int, width: int, head_dim: int, device: torch.device) -> Table:
    """Cosines and sines for every position of a map, kept for the next call.

    Args:
        height (int): rows H of the map.
        width (int): columns W of the map.
        head_dim (int): channels d of one head, a multiple of 4.
        device (torch.device): where the tables live.

    Returns:
        tuple[Tensor, Tensor]: cosine and sine, each float32 of shape
        (H * W, d / 2), one column per rotated pair: the first d / 4 pairs
        turn with the row index, the last d / 4 with the column index. They
        are float32 whatever the model's precision: in half precision the
        angles are wrong by 0.1 rad and more within a few hundred columns.
    """
    key = (height, width, head_dim, device)
    if _is_compiling() or key not in _tables:
        table = _make_table(*key)
        # While a model is traced, tensors are symbols that nobody else can use.
        if _is_compiling() or type(table[0]) is not Tensor:
            return table
        while len(_tables) >= _MOST_TABLES:
            _tables.pop(next(iter(_tables)))
        _tables[key] = table
    return _tables[key]


def _make_table(height: int, width: int, head_dim: int, device: torch.device) -> Table:
    # A table made under inference_mode could not be used for training later.
    with torch.inference_mode(False), torch.no_grad():
        angles = rope2d_angles(head_dim, device)[::2]
        rows = torch.arange(height, device=device, dtype=torch.float32)
        columns = torch.arange(width, device=device, dtype=torch.float32)
        turn = torch.cat(
            [
                (rows[:, None] * angles)[:, None].expand(-1, width, -1),
                (columns[:, None] * angles)[None].expand(height, -1, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
        return turn.cos(), turn.sin()


def rope2d_rotate(x: Tensor, table: Table) -> Tensor:
    """Rotate neighbouring channels of every token by its position's angle.

    Pairs are channels (0, 1), (2, 3), …; with c, s the pair's cosine and
    sine, ``(x0, x1) -> (x0 c - x1 s, x1 c + x0 s)``.

    Args:
        x (Tensor): queries or keys, shape (…, N, d), with N = H * W tokens in
            row-major order.
        table (tuple[Tensor, Tensor]): from :func:`rope2d_table`.

    Returns:
        Tensor: the shape and type of ``x``, computed at least in float32.
    """
    cosine, sine = table
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    x0, x1 = wide.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((x0 * cosine - x1 * sine, x1 * cosine + x0 * sine), dim=-1)
    return rotated.flatten(-2).to(x.dtype)
