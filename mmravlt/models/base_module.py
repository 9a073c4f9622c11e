"""The one place where the models meet MMEngine: their base class.

With MMEngine, it is ``mmengine.model.BaseModule``. Without, it is a module that keeps
the promises of the backbones' docstrings about ``init_cfg``.
"""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from mmravlt.checkpoint import load_weights
from mmravlt.foundation import has_mmengine

if TYPE_CHECKING or not has_mmengine():

    class BaseModule(nn.Module):
        """A module whose weights may come from a file.

        Args:
            init_cfg (dict | None): ``dict(type='Pretrained', checkpoint=…)`` takes the
                weights of a file or address in :meth:`init_weights`.

        Raises:
            ValueError: if ``init_cfg`` is anything else, which only MMEngine knows.
        """

        def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
            super().__init__()
            is_file = isinstance(init_cfg, dict) and (
                init_cfg.keys() == {'type', 'checkpoint'}
                and init_cfg['type'] == 'Pretrained'
            )
            if init_cfg is not None and not is_file:
                raise ValueError(
                    f'init_cfg is {init_cfg!r}; without MMEngine, give '
                    "dict(type='Pretrained', checkpoint=…) or None."
                )
            self.init_cfg = copy.deepcopy(init_cfg)

        def init_weights(self) -> None:
            """Load the weights that ``init_cfg`` names.

            Without any, the weights stay as the module was built: initialised.

            Raises:
                CheckpointError: if the file cannot be read or belongs to another model.
            """
            if self.init_cfg is not None:
                load_weights(self, self.init_cfg['checkpoint'])

else:
    from mmengine.model import BaseModule

__all__ = ['BaseModule']
