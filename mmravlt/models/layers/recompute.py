from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmravlt.ops.runtime import (
    autocast_dtype,
    is_compiling,
    is_recording,
    use_autocast,
)


def call_recomputing_input(
    function: Callable[[Tensor], Any],
    x: Tensor,
    recompute: Callable[..., Tensor],
    *inputs: Tensor,
) -> Any:
    """Call ``function(x)`` without keeping x for the backward pass.

    Where the function would keep x, the inputs that x was computed from are kept
    instead. If these are kept anyway, by the layer that made x of them, that layer's
    result takes no memory, and costs one more run of it in the backward pass.

    Args:
        function (Callable): a layer that keeps its input, such as a convolution.
        x (Tensor): its argument, equal to ``recompute(*inputs)``.
        recompute (Callable): what x was computed with; nothing random, and nothing
            with side effects such as running statistics.
        inputs (Tensor): its arguments.

    Returns:
        what the function returns.
    """
    # What is recorded is differentiated elsewhere, if at all, and where tensors have no
    # values there is no memory to save.
    has_values = type(x) is Tensor and not x.is_meta
    if is_recording() or not has_values or not torch.is_grad_enabled():
        return function(x)
    place, shape = x.data_ptr(), x.shape
    autocast = x.device.type, autocast_dtype(x.device.type)
    # They are kept as PyTorch keeps tensors, so checkpoints around this one work.
    keeper = _Keep.apply(x.new_empty(0, requires_grad=True), *inputs)
    uses: list[None] = []
    recomputed: list[Tensor] = []  # computed once, and gone after the last use

    def pack(tensor: Tensor) -> Tensor | None:
        is_x = tensor.data_ptr() == place and tensor.shape == shape
        if not is_x:
            return tensor
        uses.append(None)
        return None

    def unpack(kept: Tensor | None) -> Tensor:
        if kept is not None:
            return kept
        if not recomputed:
            # Detached, because PyTorch's FlopCounterMode fails at views of tensors that
            # require gradients where none are recorded.
            kept_inputs = [each.detach() for each in keeper.grad_fn.saved_tensors]
            with torch.no_grad(), use_autocast(*autocast):
                result = recompute(*kept_inputs)
            recomputed.extend([result] * len(uses))
        return recomputed.pop()

    with saved_tensors_hooks(pack, unpack):
        return function(x)


class _Keep(torch.autograd.Function):
    """Its node in the graph holds tensors; it computes nothing."""

    @staticmethod
    def forward(ctx, dummy: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return dummy.new_empty(0)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> None:
        raise AssertionError('nothing depends on the result')


def call_recomputing(block: nn.Module, *inputs: Any) -> Any:
    """Call a block keeping only its inputs, and run it again in the backward pass.

    Its batch normalisations take both runs for one step of training: the second
    leaves the running statistics alone.
    """
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    # A compiler cannot trace the statistics' context, and saves memory by itself.
    # TorchScript traces once more without gradients, and refuses a graph that differs.
    cannot = torch.jit.is_tracing() or (norms and is_compiling())
    if cannot or not torch.is_grad_enabled():
        return block(*inputs)
    options: dict[str, Any] = {}
    if norms:
        options['context_fn'] = lambda: (nullcontext(), _keep_statistics(norms))
    return checkpoint(block, *inputs, use_reentrant=False, **options)


@contextmanager
def _keep_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let batch normalisations update copies of their running statistics."""
    kept = [
        (norm, name, value)
        for norm in norms
        for name, value in norm.named_buffers(recurse=False)
    ]
    try:
        for norm, name, value in kept:
            setattr(norm, name, value.clone())
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)
