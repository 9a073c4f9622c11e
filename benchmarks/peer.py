"""The peer: RAVLT's formulas run step by step, as its authors' release runs them.

Written from the formulas, for comparison only: softmax attention forms its N×N
matrix, RoPE multiplies by dense tables of sines and cosines, every map is laid
out channels first and is permuted where a layer needs its channels last. The
names of the parameters are those of :class:`mmravlt.models.RAVLT`, so weights
move between the two.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmravlt.models import RAVLT

FFN_RATIO = 3.5


def dense_tables(height: int, width: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Sine and cosine for every token and channel, each of shape (H, W, d)."""
    angles = (1 / 10000 ** torch.linspace(0, 1, head_dim // 4)).repeat_interleave(2)
    rows = torch.arange(height)[:, None, None] * angles.expand(height, width, -1)
    columns = torch.arange(width)[None, :, None] * angles.expand(height, width, -1)
    turn = torch.cat([rows, columns], dim=-1)
    return turn.sin(), turn.cos()


def rotate(x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Rotate neighbouring channels of x, shape (B, heads, H, W, d)."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosine + turned * sine


def release_softmax(
    q: Tensor, k: Tensor, v: Tensor, sine: Tensor, cosine: Tensor
) -> Tensor:
    """Softmax attention with its N×N matrix; q, k, v have shape (B, heads, N, d)."""
    size = sine.shape[:2]
    q = rotate(q.unflatten(2, size), sine, cosine).flatten(2, 3)
    k = rotate(k.unflatten(2, size), sine, cosine).flatten(2, 3)
    logits = q.shape[-1] ** -0.5 * q @ k.transpose(-1, -2)
    return torch.softmax(logits, dim=-1) @ v


def release_rala(
    q: Tensor, k: Tensor, v: Tensor, sine: Tensor, cosine: Tensor
) -> Tensor:
    """RALA with α_j = N a_j; q, k, v have shape (B, heads, N, d)."""
    tokens, size, scale = q.shape[2], sine.shape[:2], q.shape[-1] ** -0.5
    q, k = F.elu(q) + 1, F.elu(k) + 1
    global_query = q.mean(dim=2, keepdim=True)
    weights = torch.softmax(scale * global_query @ k.transpose(-1, -2), dim=-1)
    k = k * weights.transpose(-1, -2) * tokens
    rotated_q = rotate(q.unflatten(2, size), sine, cosine).flatten(2, 3)
    rotated_k = rotate(k.unflatten(2, size), sine, cosine).flatten(2, 3)
    denominator = q @ k.mean(dim=2, keepdim=True).transpose(-1, -2) + 1e-6
    buffer = (rotated_k * tokens**-0.5).transpose(-1, -2) @ (v * tokens**-0.5)
    return rotated_q @ buffer / denominator


class _LayerNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1).contiguous())
        return x.permute(0, 3, 1, 2).contiguous()


class _Attention(nn.Module):
    def __init__(self, channels: int, num_heads: int, kind: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mix = {'rala': release_rala, 'softmax': release_softmax}[kind]
        self.qkvo = nn.Conv2d(channels, 4 * channels, 1)
        self.lepe = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        size = x.shape[2:]
        qkv, gate = self.qkvo(x).split([3 * x.shape[1], x.shape[1]], dim=1)
        lepe = self.lepe(qkv.chunk(3, dim=1)[2])
        heads = qkv.unflatten(1, (3, self.num_heads, -1)).flatten(-2)
        q, k, v = heads.transpose(-1, -2).unbind(1)
        mixed = self.mix(q, k, v, sine, cosine)
        mixed = mixed.transpose(-1, -2).flatten(1, 2).unflatten(2, size)
        return self.proj((mixed + lepe) * gate)


class _FFN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * FFN_RATIO)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class _Block(nn.Module):
    def __init__(self, channels: int, num_heads: int, kind: str) -> None:
        super().__init__()
        self.pos = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = _LayerNorm(channels), _LayerNorm(channels)
        self.attn = _Attention(channels, num_heads, kind)
        self.ffn = _FFN(channels)
        self.gamma_1 = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma_2 = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        x = x + self.pos(x)
        x = x + self.gamma_1 * self.attn(self.norm1(x), sine, cosine)
        return x + self.gamma_2 * self.ffn(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        layers, sizes = [], (3, channels // 2, channels // 2, channels // 2, channels)
        for i, stride in enumerate((2, 1, 1, 2)):
            conv = nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=stride, padding=1)
            norm = build_norm_layer(norm_cfg, sizes[i + 1])[1]
            layers += [conv, norm, nn.GELU()]
        self.proj = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class _Downsample(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


class _Stage(nn.Module):
    def __init__(self, channels: int, num_heads: int, kind: str, depth: int) -> None:
        super().__init__()
        self.head_dim = channels // num_heads
        self.blocks = nn.ModuleList(
            _Block(channels, num_heads, kind) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        tables = dense_tables(*x.shape[2:], self.head_dim)
        sine, cosine = (table.to(x.device) for table in tables)
        for block in self.blocks:
            x = block(x, sine, cosine)
        return x


class ReleaseFormulas(nn.Module):
    """RAVLT as a backbone without any rearrangement of its formulas.

    Args:
        arch (str): 't', 's', 'b' or 'l'.
        attention (Sequence[str]): each stage's kind, 'rala' or 'softmax'.
        norm_cfg (dict): normalisation, as in mmcv.
    """

    def __init__(
        self,
        arch: str = 't',
        attention: tuple[str, ...] = ('rala', 'rala', 'softmax', 'softmax'),
        norm_cfg: dict = dict(type='BN'),  # noqa: B006, C408 (read only)
    ) -> None:
        super().__init__()
        settings = RAVLT.arch_zoo[arch]
        dims = settings['embed_dims']
        self.patch_embed = _PatchEmbed(dims[0], norm_cfg)
        self.layers = nn.ModuleList(
            _Stage(*each)
            for each in zip(
                dims, settings['num_heads'], attention, settings['depths'], strict=True
            )
        )
        for i, stage in enumerate(self.layers[:-1]):
            stage.downsample = _Downsample(dims[i], dims[i + 1], norm_cfg)
        self.extra_norms = nn.ModuleList(_LayerNorm(channels) for channels in dims)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Turn images (B, 3, H, W) into maps of strides 4, 8, 16 and 32."""
        outputs = []
        x = self.patch_embed(x)
        for i, (stage, norm) in enumerate(
            zip(self.layers, self.extra_norms, strict=True)
        ):
            x = stage(x)
            outputs.append(norm(x))
            if i < 3:
                x = stage.downsample(x)
        return tuple(outputs)
