"""The command line of `cupolad`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cupola.version import __version__
from cupolad import config, daemon, journal
from cupolad.activation import ActivationError
from cupolad.config import ConfigError
from cupolad.startup import Options, StartError

_STATE: Final = Path("/var/lib/cupola")
_RUNTIME: Final = Path("/run/cupola")

_EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h; systemd knows it by name."""
_EXIT_UNAVAILABLE: Final = 69


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cupolad",
        description="The root daemon of cupola: runs the builds of this machine's users in sandboxes.",
        epilog="Normally systemd starts it through cupolad.socket. SIGTERM drains, a second signal"
        " hurries, SIGHUP reloads the configuration.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"configuration (default: {config.DEFAULT_PATH})",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=_STATE,
        metavar="DIR",
        help="store and bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=_RUNTIME,
        metavar="DIR",
        help="runtime state (default: %(default)s)",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where to listen (default: cupola.sock in the runtime directory)",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="say what is in force, and from which file, and exit",
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="remove what killed daemons have left, unless a daemon is running, and exit",
    )
    parser.add_argument("--version", action="version", version=f"cupolad {__version__}")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run with these arguments; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load(options.config)
        if options.check_config:
            _show(settings)
            return 0
        entries = journal.set_up()
        # Mounts are known to the kernel by their real paths.
        runtime = options.runtime_dir.resolve()
        places = Options(
            options.state_dir.resolve(),
            runtime,
            (options.socket or runtime / "cupola.sock").absolute(),
            reload=lambda: config.load(options.config),
        )
        if options.clean:
            _clean(settings, places)
        else:
            daemon.run(settings, places, entries)
    except ConfigError as error:
        print(f"cupolad: {error}", file=sys.stderr)
        return _EXIT_CONFIG
    except (StartError, ActivationError) as error:
        print(f"cupolad: {error}", file=sys.stderr)
        return _EXIT_UNAVAILABLE
    return 0


def _clean(settings: config.Config, places: Options) -> None:
    if not daemon.clean(settings, places):
        print("cupolad: a daemon is running, which has cleaned up when it started")


def _show(settings: config.Config) -> None:
    """Print each key with its value, and where it came from."""
    for name, value, origin, text in settings.describe():
        print(f"{name} = {value!r}  # {text} ({origin})")
