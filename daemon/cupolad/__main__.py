"""`cupolad`, the root daemon. Kept light: helper processes import it by their start-up."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the daemon's command line."""
    from cupolad.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
