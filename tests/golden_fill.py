"""Deterministic weights for the golden files: the same key always gets the same values.

A checkpoint of the authors' release cannot be downloaded here, so the golden
files were made by filling the released model with these values and recording
what it computes. Fill a model of ours through the same keys and it must agree.
NumPy's legacy RandomState is used because its stream never changes.
"""

import zlib

import numpy as np
import torch


def fill_state_dict(state_dict, seed=0):
    """Return new values for every floating tensor of ``state_dict``.

    Args:
        state_dict (dict[str, Tensor]): names in the release's own spelling.
        seed (int): another seed gives another, equally fixed, set of values.

    Returns:
        dict[str, Tensor]: float32 tensors of the same shapes. Entries that
        are not learnt (``RoPE.angle``, ``num_batches_tracked``) are left out.
    """
    filled = {}
    for key, value in state_dict.items():
        if not torch.is_floating_point(value) or key.endswith('RoPE.angle'):
            continue
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        x = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        if key.endswith('running_var'):
            x = 1 + 0.2 * np.abs(x)
        elif key.endswith('running_mean') or key.endswith('.bias'):
            x = 0.1 * x
        elif '.gamma_' in key:
            x = 0.5 + 0.1 * x
        elif x.ndim == 1:
            x = 1 + 0.1 * x
        else:
            x = x / np.sqrt(x[0].size)
        filled[key] = torch.from_numpy(x.astype(np.float32))
    return filled


def filled(model, seed=0):
    """The model with these values as its weights."""
    values = fill_state_dict(model.state_dict(), seed)
    model.load_state_dict(values, strict=False)
    return model


def relative_error(a, b):
    """max |a - b| / max |b| of two tensors or arrays."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return ((a - b).abs().max() / b.abs().max()).item()


def make_input(shape, seed=0):
    """Return the fixed N(0, 1) float32 image batch of ``shape`` (B, 3, H, W)."""
    rng = np.random.RandomState(1000 + seed)
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
