"""How the models are found from configs, and kinds of attention by their names.

With MMEngine, ``MODELS`` is a child of its root registry, so ``type='mmravlt.RAVLT'``
is found by its scope. Models are also registered in the root itself, so that
``type='RAVLT'`` is found from mmdet, mmseg, mmpretrain and mmengine alike. Without
MMEngine there are no configs, and nothing to register in.
"""

from typing import Any

from mmravlt.foundation import has_mmengine

if has_mmengine():
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import Registry

    MODELS = Registry(
        'model', parent=ROOT_MODELS, scope='mmravlt', locations=['mmravlt.models']
    )


def register_model(model: Any) -> Any:
    """Register a class under ``type='Name'`` and ``type='mmravlt.Name'``.

    A function that builds a model is registered alike.
    """
    if has_mmengine():
        MODELS.register_module(module=model)
        ROOT_MODELS.register_module(module=model)
    return model


def find_model(name: str) -> type | None:
    """The class that any library registered under a name in the scope of a config.

    Without MMEngine, None.
    """
    if not has_mmengine():
        return None
    with ROOT_MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(name)


def build_model(cfg: dict) -> Any:
    """Build a model of another library from its part of a config.

    Raises:
        ImportError: without MMEngine, by which it would be found.
    """
    if not has_mmengine():
        raise ImportError(
            f'{cfg!r} is found by the registries of OpenMMLab, and MMEngine is not '
            'installed; in a checkout of mmravlt, `pip install -c constraints.txt -e '
            "'.[lite]'` installs all of it into a fresh environment."
        )
    return ROOT_MODELS.build(cfg)


class _Kinds:
    """Classes by name, with what is used of the interface of MMEngine's registries.

    Attributes:
        module_dict (dict[str, type]): the classes by their names.
    """

    def __init__(self) -> None:
        self.module_dict: dict[str, type] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.module_dict

    def get(self, name: str) -> type | None:
        """The class of this name, or None."""
        return self.module_dict.get(name)

    def register_module(
        self,
        name: str | None = None,
        force: bool = False,
        module: type | None = None,
    ) -> Any:
        """Register a class, as a decorator or, given ``module``, as a function.

        Args:
            name (str | None): None takes the name of the class.
            force (bool): replace a class of this name.
            module (type | None): the class.

        Raises:
            KeyError: if there is a class of this name.
        """

        def register(cls: type) -> type:
            key = cls.__name__ if name is None else name
            if key in self.module_dict and not force:
                raise KeyError(
                    f'{key!r} is registered already, for '
                    f'{self.module_dict[key].__qualname__}; give another name, or '
                    'force=True to replace it.'
                )
            self.module_dict[key] = cls
            return cls

        return register if module is None else register(module)


#: Kinds of attention by the names used in ``RAVLT(attention=...)``.
ATTENTIONS = _Kinds()
