"""What `make` makes, for tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from guest import PROJECT

_SECONDS = 600


def make(*arguments: str, umask: int = 0o022, **variables: str) -> None:
    """Run make in the checkout, with more variables in its environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(
        ["make", "--silent", *arguments],
        cwd=PROJECT,
        env={**clean, **variables},
        umask=umask,
        timeout=_SECONDS,
        check=True,
    )


def make_package(directory: Path, **options: Any) -> Path:
    """The Debian package, compressed in less time than one that is handed on."""
    make("deb", f"DIST={directory}", DPKG_DEB_COMPRESSOR_LEVEL="1", **options)
    (package,) = directory.glob("*.deb")
    return package


def make_upgrade(package: Path, directory: Path, version: str) -> Path:
    """The same package as a later version, which also says so when it runs."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    lines = [f"Version: {version}" if x.startswith("Version:") else x for x in lines]
    control.write_text("\n".join(lines) + "\n")
    (said,) = tree.glob("usr/lib/cupola/lib/python3*/site-packages/cupola/version.py")
    said.write_text(f'"""The version."""\n\n__version__ = "{version}"\n')
    made = directory / "upgrade.deb"
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, made],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return made
