"""The command `cupola`: one module for each command, and what they share.

Results go to stdout and nothing else does; progress, logs and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cupola.cli import failure, parser


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status."""
    options = parser.parse(arguments)
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return failure.EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; keep the interpreter from trying again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failure.EXIT_BROKEN_PIPE
    except failure.REPORTED as error:
        return failure.report(error, as_json=getattr(options, "json", False))
