import pytest
import torch

from mmravlt.ops import rope2d, rope2d_angles, rope2d_rotate, rope2d_table


def table(height, width, head_dim, device='cpu'):
    return rope2d_table(height, width, head_dim, torch.device(device))


def test_angles_are_the_release_frequencies():
    expected = [1.0, 1.0, 10000 ** (-1 / 3), 10000 ** (-1 / 3)]
    expected += [10000 ** (-2 / 3), 10000 ** (-2 / 3), 1e-4, 1e-4]
    torch.testing.assert_close(rope2d_angles(16), torch.tensor(expected))


@pytest.mark.parametrize('height,width', [(1, 1), (3, 5), (19, 28)])
def test_first_half_turns_with_rows_and_second_half_with_columns(height, width):
    head_dim = 16
    x = torch.randn(2, 3, height * width, head_dim)
    y = rope2d_rotate(x, table(height, width, head_dim))
    angles = rope2d_angles(head_dim)
    for token in range(height * width):
        row, column = divmod(token, width)
        for pair in range(head_dim // 2):
            position = row if pair < head_dim // 4 else column
            turn = position * angles[2 * pair % (head_dim // 2)]
            x0, x1 = x[..., token, 2 * pair], x[..., token, 2 * pair + 1]
            expected = torch.stack(
                [x0 * turn.cos() - x1 * turn.sin(), x1 * turn.cos() + x0 * turn.sin()]
            )
            got = y[..., token, 2 * pair : 2 * pair + 2].movedim(-1, 0)
            torch.testing.assert_close(got, expected)


def test_few_tables_are_kept():
    for width in range(1, 40):
        table(2, width, 8)
    assert len(rope2d._tables) <= 8
    assert table(2, 39, 8) is table(2, 39, 8)


def test_products_depend_on_the_offset_between_two_positions_only():
    q, k = torch.randn(16), torch.randn(16)
    tokens = table(8, 9, 16)
    rotated_q = rope2d_rotate(q.expand(72, 16), tokens)
    rotated_k = rope2d_rotate(k.expand(72, 16), tokens)
    one = rotated_q[0 * 9 + 1] @ rotated_k[2 * 9 + 4]
    other = rotated_q[5 * 9 + 3] @ rotated_k[7 * 9 + 6]
    torch.testing.assert_close(one, other)


def test_table_is_cached_per_size():
    assert table(6, 7, 16) is table(6, 7, 16)
    assert table(7, 6, 16) is not table(6, 7, 16)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_input_is_rotated_by_float32_angles(dtype):
    x = torch.randn(1, 1, 400, 16).to(dtype)
    tokens = table(1, 400, 16)
    assert all(t.dtype == torch.float32 for t in tokens)
    y = rope2d_rotate(x, tokens)
    assert y.dtype == dtype
    assert torch.equal(y, rope2d_rotate(x.float(), tokens).to(dtype))


def test_float64_input_is_rotated_by_float64_angles():
    device = torch.device('cpu')
    for tokens in (table(1, 400, 16), rope2d_table(1, 400, 16, device, torch.float16)):
        assert all(t.dtype == torch.float32 for t in tokens)
    _, columns = rope2d_table(1, 400, 16, device, torch.float64)
    exponents = torch.arange(4, dtype=torch.float64) / 3
    turns = torch.arange(400)[:, None] * 10000**-exponents
    expected = torch.stack([turns.cos(), turns.sin()], dim=-1)
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-12)


def test_table_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        tokens = table(11, 13, 16)
    x = torch.randn(1, 1, 143, 16, requires_grad=True)
    rope2d_rotate(x, tokens).sum().backward()
    assert x.grad.abs().sum() > 0
