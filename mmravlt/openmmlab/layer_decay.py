"""Learning rates that fall from layer to layer towards the image, in any library."""

from numbers import Real

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


def install() -> None:
    """Register the constructor where every library finds it."""
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(
        module=LayerDecayOptimWrapperConstructor, force=True
    )


class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Multiply learning rates of a backbone by a power of its parameters' depth.

    It is for models of mmdet, mmseg and mmpretrain with any backbone that has
    mmpretrain's method ``get_layer_depth``, as RAVLT and L2ViT have. In a config::

        optim_wrapper = dict(
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9),
        )

    Of n blocks, the last learns with the rate × ``layer_decay_rate``, the first with
    the rate × ``layer_decay_rate`` ** n, the patch embedding with one factor more; all
    that follows the backbone, and its output norms, learn with the rate itself. So does
    mmpretrain's ``LearningRateDecayOptimWrapperConstructor``, in classifiers only.

    Everything else in ``paramwise_cfg`` means what it does in MMEngine's
    ``DefaultOptimWrapperConstructor``, a ``lr_mult`` of ``custom_keys`` included: the
    factors multiply. As ``lr``, MMEngine's log shows the learning rate of the first
    parameter, which has the smallest, and as ``base_lr`` the rate itself.

    Args:
        optim_wrapper_cfg (dict): of the optimizer wrapper, with an optimizer's ``lr``.
        paramwise_cfg (dict): with ``layer_decay_rate``, above 0 and at most 1.

    Raises:
        ValueError: if the rate is missing or out of range, if the optimizer has no
            ``lr``, or if the model has no backbone with ``get_layer_depth``.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, Real) or not 0 < rate <= 1:
            raise ValueError(
                f'layer_decay_rate in paramwise_cfg is {rate!r}; give a number above 0 '
                'and at most 1, such as 0.9.'
            )
        if self.base_lr is None:
            raise ValueError(
                f'The optimizer {self.optimizer_cfg!r} has no lr, which '
                'layer_decay_rate would multiply; give one.'
            )

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs
    ) -> None:
        """Add a group for each parameter that is trained, with its learning rate.

        Args:
            params (list[dict]): the groups, changed in place.
            module (nn.Module): the model, or a part of it.
            prefix (str): path of the part in the model.
            kwargs: as in MMEngine.
        """
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # a part of what is being added
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise ValueError(
                f'The {type(module).__name__} has no backbone that tells how deep each '
                f'parameter is (its {type(backbone).__name__} has no get_layer_depth); '
                f'leave {type(self).__name__} out for it.'
            )
        names = {parameter: name for name, parameter in module.named_parameters()}
        for group in params:
            (parameter,) = group['params']
            depth, depths = backbone.get_layer_depth(names[parameter], 'backbone.')
            factor = self.paramwise_cfg['layer_decay_rate'] ** (depths - 1 - depth)
            group['lr'] = group.get('lr', self.base_lr) * factor
