"""`cupola`, the command of users."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line."""
    from cupola.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
