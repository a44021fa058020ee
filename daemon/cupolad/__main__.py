"""`cupolad`, the root daemon. Kept light: helper processes import it by their start-up."""

from __future__ import annotations

import sys

_EXIT_UNAVAILABLE = 69


def main() -> int:
    """Run the daemon's command line."""
    try:
        from cupolad.cli import run
    except ModuleNotFoundError as error:
        print(
            f"cupolad: the module {error.name} is missing: only the client is installed here;"
            " install cupola[daemon]",
            file=sys.stderr,
        )
        return _EXIT_UNAVAILABLE
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
