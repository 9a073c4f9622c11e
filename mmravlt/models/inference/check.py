"""Whether a RAVLT computes what it was released to compute, with whatever weights.

Folding takes a model apart and calls few of its modules as they are, so that a hook, a
replaced activation or a patched method would be lost in silence. Here, each module is
compared with its counterpart in a fresh RAVLT of the same sizes: its type, all its
attributes, hooks among them, and the shapes of its weights.
"""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from mmravlt.models import layers
from mmravlt.models.backbones import ravlt
from mmravlt.models.layers import Attention, LayerNorm2d

# Of any attributes, these change nothing in evaluation. State dicts belong to the given
# model; the one for inference has none.
_IRRELEVANT = {
    *('training', 'with_cp', '_is_full_backward_hook', '_non_persistent_buffers_set'),
    *('_state_dict_hooks', '_state_dict_pre_hooks'),
    *('_load_state_dict_pre_hooks', '_load_state_dict_post_hooks'),
    *('_modules', '_parameters', '_buffers'),  # compared by what is in them
}
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def _methods(cls: type) -> dict:
    names = {'forward', *dir(cls)} - ({*dir(nn.Module)} - {'forward'})
    found = {name: getattr(cls, name) for name in names}
    return {name: value for name, value in found.items() if callable(value)}


#: Methods of each class when it was imported; somebody may replace them later.
_METHODS = {
    cls: _methods(cls)
    for cls in (
        *(*vars(layers).values(), *vars(ravlt).values()),
        *(nn.Conv2d, nn.LayerNorm, nn.GELU, nn.Sequential, *_BATCH_NORMS),
    )
    if isinstance(cls, type) and issubclass(cls, nn.Module)
}


def check_is_released(backbone: ravlt.RAVLT, kinds: Collection[type]) -> None:
    """Refuse a RAVLT that folding would take something away from.

    Values of weights, the mode, gradients, stochastic depth, ``with_cp``, and batch
    normalisation being synchronised or not are free, hooks on state dicts as well.

    Args:
        backbone (RAVLT): it is left as it is.
        kinds (Collection[type]): the kinds of attention that are known.

    Raises:
        ValueError: if a module was replaced, subclassed, hooked, parametrised, patched,
            resized or given other options, naming the module; if the backbone is an
            ablation; if there are hooks for all modules.
    """
    if type(backbone) is not ravlt.RAVLT:
        # even a subclass without a forward of its own may change what RAVLT's calls
        raise ValueError(
            f'optimize_for_inference knows RAVLT itself, but '
            f'{type(backbone).__name__} is a subclass that may compute something else; '
            'leave it out for this model.'
        )
    if backbone.ablation:
        options = ', '.join(f'{n}={v!r}' for n, v in backbone.ablation.items())
        raise ValueError(
            f'optimize_for_inference knows RAVLT as it was released, not with '
            f'{options}; leave it out for this model.'
        )
    for cls in {type(module) for module in backbone.modules()} & _METHODS.keys():
        for name, method in _methods(cls).items():
            if method != _METHODS[cls].get(name):
                raise ValueError(
                    f'optimize_for_inference knows {cls.__name__}.{name} as it was '
                    'when it was imported, but it was replaced; leave it out for this '
                    'model.'
                )
    for name, hooks in vars(torch_module).items():
        if name.startswith(('_global_forward', '_global_backward')) and hooks:
            raise ValueError(
                f'optimize_for_inference would keep hooks for all modules '
                f'({name}) from most of RAVLT; remove them first.'
            )
    for name, reason in _differences(backbone, _fresh(backbone), kinds):
        raise ValueError(
            f'optimize_for_inference knows RAVLT as it was released, but '
            f'{name or "the backbone"} {reason}; undo that, or leave it out for this '
            'model.'
        )


def _fresh(backbone: ravlt.RAVLT) -> ravlt.RAVLT:
    """A RAVLT as it was released, of the same sizes, without memory for weights."""
    sizes = ('embed_dims', 'depths', 'num_heads')
    first = next(backbone.parameters())
    norms = backbone.extra_norms.modules()
    with torch.device('meta'):
        return ravlt.RAVLT(
            {size: backbone.settings[size] for size in sizes},
            out_indices=backbone.out_indices,
            output_norm=any(isinstance(norm, LayerNorm2d) for norm in norms),
            in_channels=first.shape[1] if first.dim() == 4 else 3,
        )


def _differences(
    module: nn.Module, fresh: nn.Module, kinds: Collection[type], name: str = ''
) -> Iterator[tuple[str, str]]:
    """Names of modules that differ from their counterparts, and in what they do."""
    if isinstance(fresh, Attention) and type(module) in kinds:
        with torch.device('meta'):
            fresh = type(module)(fresh.proj.in_channels, fresh.num_heads)
    same_role = any(role(module) and role(fresh) for role in (_is_norm, _is_inactive))
    if type(module) is not type(fresh) and not same_role:
        wanted = f'the {type(fresh).__name__} there'
        if isinstance(fresh, Attention):
            wanted = ' or '.join(kind.__name__ for kind in kinds)
        yield name, f'is a {type(module).__name__}, not {wanted}'
        return
    # All options of the backbone itself and of batch norms are heeded.
    is_free = same_role or not name
    own, expected = vars(module), vars(fresh)
    for key in own.keys() - _IRRELEVANT:
        if key not in expected:
            if hasattr(type(module), key):
                yield name, f'has a {key!r} of its own'
        elif '_hooks' in key:
            if own[key]:
                yield name, f'has hooks ({key})'
        elif not is_free and not _is_equal(own[key], expected[key]):
            yield name, f'has {key}={own[key]!r}, not {expected[key]!r}'
    for key in ('_parameters', '_buffers'):
        if _shapes(own[key]) != _shapes(expected[key]):
            yield (
                name,
                f'has {_shapes(own[key])} for {key[1:]}, not {_shapes(expected[key])}',
            )
    children, counterparts = own['_modules'], expected['_modules']
    if [*children] != [*counterparts]:
        yield name, f'consists of {[*children]}, not of {[*counterparts]}'
        return
    for key, child in children.items():
        child_name = f'{name}.{key}' if name else key
        if child is None or counterparts[key] is None:
            if child is not counterparts[key]:
                yield child_name, f'is {child}, not {counterparts[key]}'
        else:
            yield from _differences(child, counterparts[key], kinds, child_name)


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a batch normalisation of PyTorch, or what MMEngine makes of it."""
    cls = type(module)
    reverted = (cls.__module__, cls.__name__) == (
        'mmengine.model.utils',
        '_BatchNormXd',
    )
    return reverted or cls in _BATCH_NORMS


def _is_inactive(module: nn.Module) -> bool:
    """Whether it does nothing in evaluation."""
    return type(module) in (nn.Identity, ravlt.DropPath)


def _is_equal(value: object, other: object) -> bool:
    return value is other or (type(value) is type(other) and value == other)


def _shapes(tensors: dict[str, Tensor | None]) -> dict[str, object]:
    """Shapes of tensors by name; of one that is not plain, such as sparse, its type."""
    return {
        name: tensor
        if tensor is None
        else tuple(tensor.shape)
        if type(tensor.detach()) is Tensor and tensor.layout is torch.strided
        else type(tensor).__name__
        for name, tensor in tensors.items()
    }
