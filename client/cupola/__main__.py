"""`cupola`, the command of users."""

from __future__ import annotations

import gc
import sys

# A tree is many small objects without a cycle; looking for cycles at every 700 of them takes a
# quarter of the time of hashing it.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> int:
    """Run the command line."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    from cupola.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
