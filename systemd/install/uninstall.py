"""What `make uninstall` runs: it needs nothing but Python itself."""

from __future__ import annotations

import argparse
import sys

import places
from deploy import NothingInstalledError, Target


def main() -> int:
    """Take an installation away; the exit status."""
    parser = argparse.ArgumentParser(prog="uninstall", description=__doc__)
    places.add_options(parser)
    options = parser.parse_args()
    try:
        Target(options.root, places.from_options(options)).remove()
    except (ValueError, NothingInstalledError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
