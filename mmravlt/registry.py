"""How the backbones are found from configs.

``MODELS`` is a child of MMEngine's root registry, so ``type='mmravlt.RAVLT'``
is found by its scope. They are also registered in the root itself, so that
``type='RAVLT'`` is found from mmdet, mmseg, mmpretrain and mmengine alike.
"""

from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    'model', parent=ROOT_MODELS, scope='mmravlt', locations=['mmravlt.models']
)

#: Kinds of attention by the names used in ``RAVLT(attention=...)``.
ATTENTIONS = Registry('attention', scope='mmravlt', locations=['mmravlt.models'])


def register_model(cls: type) -> type:
    """Register a model under ``type='Name'`` and ``type='mmravlt.Name'``.

    A function that builds a model is registered alike.
    """
    MODELS.register_module(module=cls)
    ROOT_MODELS.register_module(module=cls)
    return cls
