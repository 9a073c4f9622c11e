"""Make a model with a RAVLT faster and leaner for inference."""

from torch import nn

from .models.backbones.ravlt import RAVLT
from .models.inference import RAVLTForInference


def optimize_for_inference(
    model: nn.Module, memory_budget: float | None = None
) -> nn.Module:
    """Rearrange the RAVLT in a model, so that it predicts faster and with less memory.

    The outputs stay the same but for rounding. Load the weights first: afterwards the
    model can be neither trained nor saved nor loaded. ``state_dict(keep_vars=True)``,
    with which exporters ask for the tensors themselves, is answered.

    RAVLT's modules are taken apart, so that what was added to one of them would be
    lost. A RAVLT with anything that its release does not have is refused by the name of
    the module: a hook, a subclass, a layer exchanged or added, a parametrisation or
    pruning, a method replaced in an instance or a class, another option. That holds for
    hooks on the backbone itself, too: register them on its replacement, whose inputs
    and outputs are the same; its inner maps do not exist as such any more, so take
    features for Grad-CAM and the like from the model before. What changes nothing in
    evaluation is free: values and types of weights, SyncBN or BN, frozen stages,
    stochastic depth, ``with_cp``, attributes that RAVLT has no use for, hooks on state
    dicts.

    Args:
        model (nn.Module): a RAVLT, or any model that holds one or more, such as a
            detector, segmentor or classifier.
        memory_budget (float | None): MiB that tensors beside the feature maps may take
            in the backbone. Less memory costs time. None takes 24 MiB on a CPU, whose
            cache it fits, and 1024 MiB on a GPU.

    Returns:
        nn.Module: the model, with every RAVLT in it replaced; for a RAVLT, a new
        module in eval mode, which leaves the given one as it is.

    Raises:
        ValueError: if there is no RAVLT in the model, if one is not as it was released,
            or if the budget is no positive number.
    """
    if isinstance(model, RAVLT):
        return RAVLTForInference(model, memory_budget)
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, RAVLT)
    ]
    if not found:
        raise ValueError(
            f'The {type(model).__name__} holds no RAVLT, so there is nothing that '
            'optimize_for_inference could do; leave it out for this model.'
        )
    for parent, name, backbone in found:
        setattr(parent, name, RAVLTForInference(backbone, memory_budget))
    return model.eval()
