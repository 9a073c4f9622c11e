"""``torch.compile`` takes the backbone as one graph, for all image sizes at once."""

import shutil

import pytest
import torch

from mmravlt.models import RAVLT

from ..golden_fill import filled, make_input, relative_error
from .test_ravlt import TINY

# Every layer of the backbone stands in two stages, one of each kind of attention.
TWO_STAGES = dict(
    arch=dict(TINY, depths=(1, 1, 1, 1)),
    attention=('rala', 'softmax') * 2,
    out_indices=(0, 1),
)
needs_compiler = pytest.mark.skipif(
    shutil.which('g++') is None, reason='PyTorch compiles for CPUs with g++'
)


def outputs_and_gradients(forward, model, size):
    """Maps, and gradients of the image and of every parameter, by name."""
    model.zero_grad()
    image = make_input((2, 3, *size)).requires_grad_()
    results = {f'map {i}': output for i, output in enumerate(forward(image))}
    loss = sum(
        (output * make_input(output.shape, i)).sum()
        for i, output in enumerate(results.values())
    )
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {**results, 'image': image.grad, **gradients}


@pytest.mark.slow
@pytest.mark.parametrize(
    'backend,sizes',
    [
        # Not square: equal sides would be taken for one size.
        ('aot_eager', [(64, 72), (75, 109)]),
        pytest.param('inductor', [(75, 109)], marks=needs_compiler),
    ],
)
def test_one_graph_serves_all_sizes_and_equals_eager(backend, sizes):
    model = filled(RAVLT(**TWO_STAGES).eval())
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(
        model, fullgraph=True, dynamic=len(sizes) > 1, backend=counting
    )
    counts = []
    for size in sizes:
        results = outputs_and_gradients(compiled, model, size)
        counts.append(len(graphs))
        for name, value in outputs_and_gradients(model, model, size).items():
            assert relative_error(results[name], value) <= 1e-5, name
    assert 0 < counts[0] == counts[-1]
