"""Commands: ``python -m mmravlt doctor`` and ``python -m mmravlt check-data DIR``."""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m mmravlt')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('doctor', help='say what is installed and what will work')
    words = 'say what is in a folder of data, and what is odd there'
    check = commands.add_parser('check-data', help=words, description=words)
    if 'check-data' in sys.argv[1:2]:  # the doctor must not need what this imports
        from .data.check import add_arguments, check_data

        add_arguments(check)
        return check_data(parser.parse_args())
    parser.parse_args()
    from .doctor import examine

    return examine()


if __name__ == '__main__':
    sys.exit(main())
