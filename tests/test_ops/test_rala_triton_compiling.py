"""The Triton kernels compile for every card that takes them; no GPU is needed."""

import pytest
from torch import library

pytest.importorskip('triton')
if not hasattr(library, 'custom_op'):
    pytest.skip('torch has no custom_op yet', allow_module_level=True)

from benchmarks.compile_report import problems  # noqa: E402
from benchmarks.compiling import CARDS, Case, compile_all  # noqa: E402

# Each card once; in all, every type, every layout and the largest head.
CASES = [
    Case(80, 'float32', 64, 1, 'channels_last'),
    Case(86, 'float32', 128, 2, 'channels_last'),
    Case(89, 'float16', 56, 2, 'nchw'),
    Case(90, 'bfloat16', 64, 1, 'channels_last'),
    Case(100, 'bfloat16', 64, 2, 'channels_last'),
    Case(103, 'float16', 96, 1, 'unaligned'),
    Case(120, 'float32', 32, 2, 'unaligned'),
]


@pytest.mark.slow
def test_kernels_compile_and_fit_every_card_without_spills():
    rows = compile_all(CASES, jobs=2, count=False)
    compiled = {(row['capability'], row['direction']) for row in rows}
    assert compiled == {
        (card, way) for card in CARDS for way in ('forward', 'backward')
    }
    found = problems(rows)
    assert not found, '\n'.join(found)
