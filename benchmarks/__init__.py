"""Commands that measure speed and memory; ``python -m benchmarks --help``.

Contestants run interleaved in one process, because machines are noisy: what counts
is the ratio between them. Figures are medians of at least five runs and are written
to ``benchmarks/results`` as CSV files named by their condition.
"""

import os

# PyTorch's profiler, which counts memory, complains where there is no GPU.
os.environ.setdefault('KINETO_LOG_LEVEL', '99')
