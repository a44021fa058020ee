"""The command line's grammar and help."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from cupola.cli import build, store, transfer
from cupola.version import __version__

_NODE = "node in its text form, such as d:<digest>:<size>"

_EXITS = """\
exit status:
  0    done
  1    doctor has found a problem
  2    the request is wrong, or names what the store lacks
  69   no daemon answers            75   the host is at fault, or a quota: try again
  77   denied by the administrator
  100  the build failed             101  it ran or was silent for too long
  130  cancelled
"""

_DOCTOR = """\
Check what cupola needs of this machine, and what you need to use it: kernel,
namespaces, cgroups, FUSE, runc, shell, room for the daemon's state, units,
socket, group and the daemon itself. Nothing is changed, and no privilege is
needed; as root it may be told more. It takes some seconds if something hangs.
"""

_VERDICTS = """\
verdicts, each but ok with a remedy:
  ok       all is well
  unknown  the check could not be made
  warning  it works, but not as well, as safely or as lastingly as it should
  problem  it does not work, or not for you; the exit status is then 1, else 0

With --json: {"healthy": true if there is no problem, "findings": [{"check",
"verdict", "found", "remedy": null if ok}, ...]}, always the same checks.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; its attribute `run` does what they say, and returns the status."""
    return make_parser().parse_args(arguments)


def make_parser() -> argparse.ArgumentParser:
    """The grammar, with every command."""
    parser = argparse.ArgumentParser(
        prog="cupola",
        description="Builds software in sandboxes, through the daemon of this machine.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cupola {__version__}")
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="the daemon's socket (default: $CUPOLA_SOCKET, else /run/cupola/cupola.sock)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(
        commands,
        "build",
        build.run,
        "run a build",
        "Run the build that FILE describes (TOML or JSON; - is standard input) and print the node"
        " of each output. The build's log goes to standard error while it runs.",
    )
    command.add_argument("file", metavar="FILE", help="request file, or -")
    command.add_argument("--json", action="store_true", help="print one JSON object instead")
    command.add_argument("--out", type=Path, metavar="DIR", help="export the outputs into DIR")
    command.add_argument("--quiet", "-q", action="store_true", help="do not show the log")

    command = _command(
        commands,
        "import",
        transfer.run_import,
        "store files",
        "Store a file, symlink or directory and print its node. Symlinks are not followed.",
    )
    command.add_argument("path", metavar="PATH", type=Path)
    command.add_argument("--json", action="store_true", help="print the node as JSON")

    command = _command(
        commands,
        "export",
        transfer.run_export,
        "write a node to disk",
        "Write a node to DEST, which must not exist.",
    )
    command.add_argument("node", metavar="NODE", help=_NODE)
    command.add_argument("dest", metavar="DEST", type=Path)

    command = _command(
        commands, "ls", store.run_ls, "list a directory", "List a directory of the store."
    )
    command.add_argument("node", metavar="NODE", help=_NODE)
    command.add_argument("path", metavar="PATH", nargs="?", help="path below NODE")
    command.add_argument("--json", action="store_true", help="print a JSON object by name")

    command = _command(
        commands, "cat", store.run_cat, "print a file", "Print the contents of a file of the store."
    )
    command.add_argument("node", metavar="NODE", help=_NODE)
    command.add_argument("path", metavar="PATH", nargs="?", help="path below NODE")

    command = _command(
        commands,
        "status",
        store.run_status,
        "show how the daemon is doing",
        "Show how the daemon is doing, and your own builds.",
    )
    command.add_argument("--json", action="store_true", help="print a JSON object")

    command = commands.add_parser(
        "doctor",
        help="say why cupola does not work here, and what to do",
        description=_DOCTOR,
        epilog=_VERDICTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead")
    command.set_defaults(run=_doctor)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    # Nobody else needs it, and the other commands start faster without it.
    from cupola.cli import doctor

    return doctor.run(options)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], Awaitable[int]],
    summary: str,
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=text)
    command.set_defaults(run=lambda options: trio.run(run, options))
    return command
