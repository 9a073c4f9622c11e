"""Which of a file's weights a model needs, and under which names."""

import warnings
from itertools import islice

from torch import Tensor

from .contents import Contents
from .errors import WrongWeightsError
from .families import BACKBONE, FAMILIES, Family, Shapes, Size, find_backbones
from .families.record import Partial
from .report import Report, name_parts


def remap(
    contents: Contents, expected: Shapes, file: str = 'the file'
) -> tuple[dict[str, Tensor], Report]:
    """Choose what a model needs of the weights of a file, and name it as it does.

    Args:
        contents: What the file holds.
        expected: Names and shapes of the model's weights: of a backbone, or of a
            model that has one under ``backbone.``.
        file: What to call the file in sentences.

    Returns:
        The weights whose names and shapes the model has, and what the file may hold
        of the values that the model derives, such as RAVLT's ``RoPE.angle``; and the
        report. Where the model has a part of a weight, such as ``qkv`` of the
        release's ``qkvo``, it gets that part.

    Raises:
        WrongWeightsError: The weights belong to a backbone of another size or
            family, or to another model.
    """
    roots = find_backbones(expected)
    is_bare = '' in roots
    size = roots['' if is_bare else BACKBONE]
    family = FAMILIES[size.family]
    prefix = BACKBONE if is_bare else ''
    if contents.size is None:
        # Heads alone may be loaded; another backbone's names may be alike.
        if is_bare or any(name.startswith(BACKBONE) for name in contents.weights):
            raise _foreign(contents, size, file)
    elif not contents.size.fits(size):
        raise WrongWeightsError(
            f'the weights of {file} are of {contents.size}, but this model is {size}: '
            f'give it weights of {size}, or build a model of {contents.size}'
        )

    report = Report(contents, file, is_part=is_bare or contents.kind == 'backbone')
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, shape in expected.items():
        source, partial = _source(family, contents, prefix + name)
        value = contents.weights.get(source)
        if partial is not None:
            part = partial.take(contents.weights[source], shape)
            if part is not None:
                value, report.partial[name] = part, partial
        used.add(source)
        is_counter = name.endswith('num_batches_tracked')  # absent in old files
        if value is None:
            if not is_counter:
                report.new.append(name)
        elif tuple(value.shape) != tuple(shape):
            report.changed[name] = tuple(value.shape), tuple(shape)
        else:
            result[name] = value
            if not is_counter:
                report.loaded.append(name)
    if not report.loaded:
        raise _foreign(contents, size, file)
    parts = {part for name in expected for part in name_parts(name)}
    for name, source in contents.sources.items():
        own = name.removeprefix(prefix)
        is_below = name.startswith(prefix)
        if name not in used and is_below and family.part_that_derives(own) in parts:
            used.add(name)
            result[own] = contents.weights[name]
        (report.used if name in used else report.unused).append(source)
    return result, report


def _source(
    family: Family, contents: Contents, name: str
) -> tuple[str, Partial | None]:
    """Under which name there is what a model expects, and if it is a part of that."""
    if name not in contents.weights:
        for partial in family.partial:
            whole = partial.name.sub(partial.whole, name)
            if whole in contents.weights:
                return whole, partial
    return name, None


def _foreign(contents: Contents, size: Size, file: str) -> WrongWeightsError:
    parts = dict.fromkeys(name.split('.')[0] for name in contents.weights)
    begin = ', '.join(islice(parts, 4)) + (', …' if len(parts) > 4 else '')
    return WrongWeightsError(
        f'there is nothing in {file} for this {size} model (its names begin with '
        f'{begin}), so nothing was loaded: give it weights of {size}'
    )


def fit(
    contents: Contents, expected: Shapes, file: str = 'the file'
) -> tuple[dict[str, Tensor], Report]:
    """The old name of :func:`remap`."""
    warnings.warn(
        'mmravlt.checkpoint.fit is called remap now', FutureWarning, stacklevel=2
    )
    return remap(contents, expected, file)
