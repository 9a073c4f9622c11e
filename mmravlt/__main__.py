"""``python -m mmravlt doctor``: say what is installed and what will work."""

import argparse
import sys

from .doctor import examine


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m mmravlt')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('doctor', help='say what is installed and what will work')
    parser.parse_args()
    return examine()


if __name__ == '__main__':
    sys.exit(main())
