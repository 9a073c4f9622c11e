"""What the tools do. Arguments are read before the libraries are imported.

Each command is a module with ``run(args, console)``; its options are in
:mod:`mmravlt.commands.arguments`.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from ..foundation import has_mmengine


def main(command: str) -> None:
    """Run a command with the arguments of this process.

    Args:
        command (str): 'train', 'test' or 'inference'.
    """
    from .arguments import PARSERS

    args = PARSERS[command]()
    need_config(args.config)
    if not has_mmengine():
        raise SystemExit('error: MMEngine is not installed; see docs/install.md')

    from .console import own_console

    try:
        with nullcontext() if args.verbose else own_console() as console:
            _activate()
            import_module(f'.{command}', __package__).run(args, console)
    except KeyboardInterrupt:
        more = '; --resume goes on from the last checkpoint' * (command == 'train')
        print(f'stopped{more}', file=sys.stderr)
        sys.exit(130)


def need_config(path: str) -> None:
    """End the program with one sentence if there is no such file."""
    if not Path(path).is_file():
        raise SystemExit(f'error: there is no config file {path}')


def _activate() -> None:
    from .. import activate
    from .quick_configs import install

    try:
        activate()
    except ImportError as error:
        raise SystemExit(
            f'error: {error} (`python -m mmravlt doctor` says what is installed)'
        ) from None
    install()
