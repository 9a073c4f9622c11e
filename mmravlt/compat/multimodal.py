"""Leave mmpretrain's multimodal models out where transformers does not fit them.

mmpretrain imports its vision-language models (BLIP, OFA, …) wherever any transformers
from 4.28 on is installed. Later ones moved or dropped names that these models
import, and then `import mmpretrain.models`, and with it `import mmdet.models` and
`import mmseg.models`, ends with "NoneType takes no arguments". After `install()` such
an environment is to mmpretrain like one without transformers: all else works, and
these models raise an ImportError that says why.

Upstream: mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6 (`utils/dependency.py` and
`models/multimodal/blip/language_model.py`) with transformers from 4.56 on, whose
`modeling_utils` has no `apply_chunking_to_forward`. May go when mmpretrain imports the
names from where transformers has them now, or these models only if they are asked for;
`install()` does nothing where transformers has all names that mmpretrain imports.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

SWITCH = 'mmpretrain.utils.dependency'  # has WITH_MULTIMODAL, read by all others
MODELS = 'mmpretrain.models.multimodal'


def status() -> str | None:
    """Why mmpretrain's multimodal models cannot work with the installed transformers.

    Returns:
        str or None: a clause with the first name that is missing; None if nothing
        is, or if transformers or mmpretrain is not installed.
    """
    if not (importlib.util.find_spec('transformers') and _folder()):
        return None
    for module, name in _needed(_folder()):
        missing = f'the installed transformers has no {module}.{name}'
        try:
            if not hasattr(importlib.import_module(module), name):
                return missing
        except Exception as error:  # a transformers may not load at all
            return f'{missing} ({" ".join(str(error).split())})'
    return None


def install() -> None:
    """Make mmpretrain skip its multimodal models if they cannot be imported.

    May be called any number of times; before `mmpretrain.models` is imported.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if SWITCH not in sys.modules:
        sys.meta_path.insert(0, _Finder())
    elif MODELS not in sys.modules:
        sys.meta_path.insert(0, _Finder())
        _switch_off_if_broken(sys.modules[SWITCH])


def _folder() -> Path | None:
    spec = importlib.util.find_spec('mmpretrain')
    return Path(spec.origin).parent if spec and spec.origin else None


def _needed(folder: Path) -> Iterator[tuple[str, str]]:
    """What the multimodal modules of an mmpretrain take from transformers.

    Args:
        folder: of the package mmpretrain.

    Yields:
        (str, str): module of transformers, name in it.
    """
    for path in (
        *sorted(folder.glob('models/multimodal/**/*.py')),
        *(
            folder / 'models/utils' / name
            for name in ('huggingface.py', 'tokenizer.py')
        ),
    ):
        if not path.is_file():
            continue
        statements = ast.parse(path.read_text(encoding='utf-8')).body
        for statement in statements:
            if isinstance(statement, ast.Try):  # its names are None where it fails
                statements.extend(statement.body)
            if not isinstance(statement, ast.ImportFrom) or statement.level:
                continue
            if statement.module.split('.')[0] == 'transformers':
                yield from ((statement.module, alias.name) for alias in statement.names)


def _switch_off_if_broken(dependency) -> None:
    if not dependency.WITH_MULTIMODAL:
        return
    reason = status()
    if reason is None:
        return
    dependency.WITH_MULTIMODAL = False
    # mmpretrain's own placeholders ask to install what is installed
    dependency.register_multimodal_placeholder = _register_placeholders


def _register_placeholders(names, registry) -> None:
    for name in names:

        def refuse(*args, _name=name, **kwargs):
            raise _error(f'mmpretrain.models.{_name}')

        registry.register_module(name=name, module=refuse)


def _error(name: str) -> ImportError:
    return ImportError(
        f'{name} does not work here: {status()}. These models of mmpretrain were seen '
        'to run with transformers 4.46.3; the rest of mmpretrain works with any.',
        name=name,
    )


class _Finder(MetaPathFinder, Loader):
    """Looks at mmpretrain's switch as soon as it has been loaded."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.startswith(f'{MODELS}.'):
            if (
                getattr(sys.modules.get(SWITCH), 'WITH_MULTIMODAL', True)
                or not status()
            ):
                return None
            raise _error(fullname)
        if fullname != SWITCH:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            self.real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.real
        self.real.exec_module(module)
        _switch_off_if_broken(module)
