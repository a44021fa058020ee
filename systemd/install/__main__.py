"""What `make install` and `make deb` run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import deb
import environment
import places
from deploy import Target
from environment import Project
from image import Image

_NEXT = """\
To start it:
    systemd-sysusers && systemd-tmpfiles --create && journalctl --update-catalog
    systemctl daemon-reload && systemctl enable --now cupolad.socket"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="install", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    wheels = argparse.ArgumentParser(add_help=False)
    wheels.add_argument("--wheels", type=Path, required=True, help="directory of wheels")
    python = argparse.ArgumentParser(add_help=False)
    python.add_argument("--python", type=Path, required=True, help="what shall run cupola")
    steps.add_parser("wheels", parents=[wheels])
    places.add_options(steps.add_parser("install", parents=[wheels, python]))
    package = steps.add_parser("deb", parents=[wheels, python])
    package.add_argument("--into", type=Path, required=True, help="directory of packages")
    package.add_argument("--epoch", type=int, required=True, help="seconds since 1970")
    return parser


def main() -> int:
    """Do one step; the exit status."""
    options = _parser().parse_args()
    project = Project(Path(__file__).resolve().parents[2])
    os.umask(0o022)
    try:
        if options.step == "wheels":
            environment.collect_wheels(project, options.wheels)
        elif options.step == "install":
            _install(project, options)
        else:
            print(deb.build(project, options.wheels, options.python, options.into, options.epoch))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _install(project: Project, options: argparse.Namespace) -> None:
    where = places.from_options(options)
    with tempfile.TemporaryDirectory(prefix="cupola-install-") as directory:
        stage = Path(directory).resolve() / "stage"
        Image(project, where, stage).make(options.wheels, options.python)
        environment.compile_modules(stage, where.environment)
        Target(options.root, where).put(stage)
    if options.root.resolve() == Path("/"):
        print(_NEXT)


if __name__ == "__main__":
    sys.exit(main())
