"""What the backbones have in common: their options, and what stays frozen."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmravlt.models.base_module import BaseModule


class Backbone(BaseModule):
    """A backbone of four stages, with the options of OpenMMLab's backbones.

    A subclass has an ``arch_zoo``, builds its parts from ``self.settings``, says in
    :meth:`frozen_parts` what ``frozen_stages`` freezes and in :meth:`block_of` which
    block a parameter belongs to, and at the end of its ``__init__`` calls
    :meth:`freeze`.

    Args:
        arch (str | dict): a name in ``arch_zoo``, or a dict with ``embed_dims``,
            ``depths`` and ``num_heads`` (four values each) and, if wanted, what
            ``arch_defaults`` has.
        out_indices (Sequence[int]): stages whose maps are returned.
        in_channels (int): channels of the image.
        drop_path_rate (float | None): stochastic depth of the last block; None takes
            the variant's own.
        frozen_stages (int): -1 freezes nothing, 0 the patch embedding, n > 0 also
            the first n stages.
        norm_cfg (dict): batch normalisation, ``dict(type='BN')`` or
            ``dict(type='SyncBN')``.
        norm_eval (bool): keep all batch statistics fixed in training.
        with_cp (bool | str): True recomputes whole blocks in the backward pass.
        out_channels_last (bool): return maps in the memory format channels_last.
        init_cfg (dict | None): as in MMEngine.

    Attributes:
        settings (dict): the architecture, complete.
        drop_path_rates (list[list[float]]): of each block of each stage that is
            built; they grow linearly over all blocks of the variant.
        num_stages (int): how many stages are built: none after the last of
            ``out_indices``.

    Raises:
        ValueError: if an argument has a value that no model can be built of.
    """

    #: Sizes by the names that ``arch`` takes.
    arch_zoo: Mapping[str, dict] = {}
    #: What a dict given as ``arch`` may leave out.
    arch_defaults: Mapping[str, float] = {'drop_path_rate': 0.0}
    #: What the channels of each head must be a multiple of, and the words that say why.
    head_rule = (1, 'give a multiple of the heads')
    #: Values of ``with_cp`` beside True and False.
    with_cp_names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        arch: str | dict,
        out_indices: Sequence[int],
        in_channels: int,
        drop_path_rate: float | None,
        frozen_stages: int,
        norm_cfg: dict,
        norm_eval: bool,
        with_cp: bool | str,
        out_channels_last: bool = False,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.settings = self._read_arch(arch)
        rate: Any = drop_path_rate
        if rate is None:
            rate = self.settings['drop_path_rate']
        _check_out_indices(out_indices)
        if not is_int(in_channels) or in_channels < 1:
            raise ValueError(
                f'in_channels is {in_channels!r}; give a whole number from 1.'
            )
        if not isinstance(rate, Real) or not 0 <= float(rate) < 1:
            raise ValueError(
                f'drop_path_rate is {rate!r}; it is a probability, give a '
                'value from 0 to below 1.'
            )
        if not isinstance(with_cp, bool) and with_cp not in self.with_cp_names:
            *others, last = ('True', 'False', *map(repr, self.with_cp_names))
            raise ValueError(
                f'with_cp is {with_cp!r}; give {", ".join(others)} or {last}.'
            )
        if not isinstance(out_channels_last, bool):
            raise ValueError(
                f'out_channels_last is {out_channels_last!r}; give True or False.'
            )
        self.arch = arch
        self.out_channels_last = out_channels_last
        self.out_indices = tuple(out_indices)
        self.num_stages = self.out_indices[-1] + 1
        if not is_int(frozen_stages) or not -1 <= frozen_stages <= self.num_stages:
            raise ValueError(
                f'frozen_stages is {frozen_stages!r}; give -1 (none), 0 (the patch '
                f'embedding) or a number of stages up to {self.num_stages}.'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        depths = self.settings['depths']
        last = max(sum(depths) - 1, 1)
        rates = [rate * i / last for i in range(sum(depths))]
        self.drop_path_rates = [
            rates[sum(depths[:i]) : sum(depths[: i + 1])]
            for i in range(self.num_stages)
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages in ``out_indices``.

        Args:
            x (Tensor): images, shape (B, in_channels, H, W).

        Returns:
            tuple[Tensor]: maps of shape (B, C_i, H_i, W_i), strides 4, 8, 16, 32.
        """
        raise NotImplementedError

    def frozen_parts(self) -> Iterable[nn.Module]:
        """What ``frozen_stages`` freezes, which is here 0 or more."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Freeze what ``frozen_stages`` says: weights, statistics, mode."""
        if self.frozen_stages < 0:
            return
        for module in self.frozen_parts():
            module.eval()
            module.requires_grad_(False)

    def block_of(self, name: str) -> tuple[int, int] | None:
        """Stage and block that a parameter of this name counts to.

        The block is -1 before the first of a stage. None stands for what comes after
        the last block, such as output norms.
        """
        raise NotImplementedError

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for learning rates that fall towards the image.

        As in mmpretrain's backbones: the patch embedding has depth 0, the blocks 1, 2,
        …, and all that follows them the largest depth.

        Args:
            param_name (str): name of the parameter in a model.
            prefix (str): what names of the backbone's parameters begin with there, such
                as 'backbone.'. Parameters with another name follow the backbone.

        Returns:
            tuple[int, int]: the depth, and the number of depths.
        """
        depths = self.settings['depths'][: self.num_stages]
        block = None
        if param_name.startswith(prefix):
            block = self.block_of(param_name.removeprefix(prefix))
        last = sum(depths) + 1
        if block is None:
            return last, last + 1
        stage, number = block
        return sum(depths[:stage]) + number + 1, last + 1

    def lay_out(self, x: Tensor) -> Tensor:
        """A map as it is returned: contiguous, unless ``out_channels_last``.

        Inside, maps are channels_last, of which ``view`` cannot join rows and columns.
        """
        return x if self.out_channels_last else x.contiguous()

    def train(self, mode: bool = True) -> 'Backbone':
        """Set the mode, keep what is frozen frozen, and return the module."""
        super().train(mode)
        if mode:
            self.freeze()
            if self.norm_eval:
                for module in self.modules():
                    # The base class of BatchNorm2d and SyncBatchNorm alike.
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def _read_arch(self, arch: str | dict) -> dict:
        """Settings of a named or a given architecture, checked and complete."""
        if not isinstance(arch, Mapping):
            if not isinstance(arch, str) or arch not in self.arch_zoo:
                raise ValueError(
                    f'arch is {arch!r}; give one of '
                    f'{", ".join(map(repr, self.arch_zoo))} or a dict with embed_dims, '
                    'depths and num_heads.'
                )
            return self.arch_zoo[arch]
        needed = ('embed_dims', 'depths', 'num_heads')
        missing = [key for key in needed if key not in arch]
        unknown = [key for key in arch if key not in (*needed, *self.arch_defaults)]
        if missing or unknown:
            raise ValueError(
                f'arch lacks {missing} and has unknown keys {unknown}; give '
                'embed_dims, depths, num_heads and, if wanted, '
                f'{" and ".join(self.arch_defaults)}.'
            )
        settings = {**self.arch_defaults, **arch}
        for key in needed:
            values = settings[key]
            if not is_four(values) or any(not is_int(v) or v < 1 for v in values):
                raise ValueError(
                    f"arch['{key}'] is {values!r}; give 4 whole numbers, one per stage."
                )
        multiple, reason = self.head_rule
        for channels, heads in zip(
            settings['embed_dims'], settings['num_heads'], strict=True
        ):
            if channels % (multiple * heads):
                raise ValueError(
                    f"arch['embed_dims'] has {channels} channels for {heads} heads; "
                    f'{reason}.'
                )
        return settings


def is_four(values) -> TypeGuard[Sequence]:
    """Whether an option has a value for each stage."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    return is_list and len(values) == 4


def is_int(value) -> bool:
    """Whether an option is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_out_indices(out_indices: Sequence[int]) -> None:
    is_list = isinstance(out_indices, Sequence) and all(map(is_int, out_indices))
    rising = sorted(set(out_indices) & set(range(4))) if is_list else []
    if not rising or list(out_indices) != rising:
        raise ValueError(
            f'out_indices is {out_indices!r}; give rising stage numbers out of 0, 1, '
            '2, 3.'
        )
