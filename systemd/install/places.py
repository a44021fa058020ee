"""Where an installation lies: directories as the installed programs see them."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONFIGURATION: Final = Path("/etc/cupola")
"""The daemon looks for its configuration here, whatever the prefix."""

_LONGEST_INTERPRETER: Final = 120
"""Characters of an interpreter's path that every kernel takes after `#!`."""


@dataclass(frozen=True)
class Places:
    """The directories that the administrator may choose. ValueError if one cannot be used."""

    bin: Path
    lib: Path
    share: Path
    units: Path
    zsh: Path

    def __post_init__(self) -> None:
        for place in (self.bin, self.lib, self.share, self.units, self.zsh):
            if not place.is_absolute() or ".." in place.parts:
                raise ValueError(f"{place} must be absolute and without ..")
            if any(character.isspace() or character in '"%\\' for character in str(place)):
                raise ValueError(f"{place} must be without spaces, quotes, percents, backslashes")
        if len(str(self.interpreter)) > _LONGEST_INTERPRETER:
            raise ValueError(f"{self.interpreter} is too long for the first line of a script")

    @property
    def environment(self) -> Path:
        """The private virtual environment, and all else that is nobody else's."""
        return self.lib / "cupola"

    @property
    def interpreter(self) -> Path:
        """What runs both commands."""
        return self.environment / "bin/python3"

    @property
    def doc(self) -> Path:
        """Documentation, besides man pages."""
        return self.share / "doc/cupola"

    @property
    def man(self) -> Path:
        """Man pages, by section."""
        return self.share / "man"

    @property
    def catalog(self) -> Path:
        """Explanations of journal entries."""
        return self.lib / "systemd/catalog"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line say where things lie."""
    parser.add_argument("--root", type=Path, required=True, help="the file system to install into")
    for place in dataclasses.fields(Places):
        parser.add_argument(f"--{place.name}", type=Path, required=True)


def from_options(options: argparse.Namespace) -> Places:
    """What a command line said; ValueError if that cannot be used."""
    return Places(*(getattr(options, place.name) for place in dataclasses.fields(Places)))
