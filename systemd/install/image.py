"""The image of an installation: every file at its place below a stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import completions
import environment
from environment import Project
from places import CONFIGURATION, Places

_UNIT_SUFFIXES: Final = {".service", ".slice", ".socket", ".timer", ".target", ".path"}
_DOCUMENTED_BIN: Final = "/usr/bin/cupola"
"""How the units in the checkout begin the path of both commands."""


class Image:
    """What is installed, below the directory `stage`, which is made."""

    def __init__(self, project: Project, places: Places, stage: Path) -> None:
        self._project, self._places, self._stage = project, places, stage
        self._systemd = project.root / "systemd"
        stage.mkdir(mode=0o755)

    def below(self, place: Path) -> Path:
        """Where something of the installation lies now."""
        return self._stage / place.relative_to("/")

    def make(self, wheels: Path, python: Path) -> None:
        """Put everything in place; modules are not compiled yet."""
        environment.make(self._project, wheels, self._stage, self._places.environment, python)
        self._add_commands()
        self._add_units()
        self._add_documentation()
        self._add_completions()
        self._add_configuration()

    def units(self) -> list[str]:
        """The names of the units."""
        return sorted(unit.name for unit in self._unit_files())

    # --- parts -----------------------------------------------------------------------------------

    def _add_commands(self) -> None:
        directory = self.below(self._places.bin)
        directory.mkdir(parents=True, exist_ok=True)
        for name in self._project.commands:
            target = os.path.relpath(self._places.environment / "bin" / name, self._places.bin)
            (directory / name).symlink_to(target)

    def _unit_files(self) -> Iterator[Path]:
        for file in self._systemd.iterdir():
            if file.suffix in _UNIT_SUFFIXES:
                yield file

    def _add_units(self) -> None:
        lib = self._places.lib
        for unit in self._unit_files():
            text = unit.read_text().replace(_DOCUMENTED_BIN, str(self._places.bin / "cupola"))
            self._write(self._places.units / unit.name, text)
        for catalog in self._systemd.glob("*.catalog"):
            self._copy(catalog, self._places.catalog)
        for folder in ("sysusers.d", "tmpfiles.d"):
            for file in (self._systemd / folder).glob("*.conf"):
                self._copy(file, lib / folder)

    def _add_documentation(self) -> None:
        root = self._project.root
        for page in (root / "docs/man").iterdir():
            self._copy(page, self._places.man / f"man{page.suffix[1:]}")
        for file in (root / "README.md", root / "CHANGELOG.md", root / "LICENSE"):
            self._copy(file, self._places.doc)
        for file in (root / "docs").glob("*.*"):
            self._copy(file, self._places.doc / "docs")

    def _add_completions(self) -> None:
        share = self._places.share
        for name in self._project.commands:
            for shell, path in (
                ("bash", share / "bash-completion/completions" / name),
                ("zsh", self._places.zsh / f"_{name}"),
                ("fish", share / f"fish/vendor_completions.d/{name}.fish"),
            ):
                self._write(path, completions.script(name, shell))

    def _add_configuration(self) -> None:
        program = Path(__file__).with_name("example.py")
        done = subprocess.run(
            [sys.executable, "-I", program], stdout=subprocess.PIPE, text=True, check=True
        )
        self._write(CONFIGURATION / "cupolad.toml", done.stdout)
        self.below(CONFIGURATION / "cupolad.toml.d").mkdir()

    # --- files -----------------------------------------------------------------------------------

    def _write(self, place: Path, text: str) -> None:
        file = self.below(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)

    def _copy(self, file: Path, directory: Path) -> None:
        made = self.below(directory)
        made.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, made / file.name)
        (made / file.name).chmod(0o644)
