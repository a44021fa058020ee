"""The private virtual environment: Debian's interpreter, pinned packages, nothing to develop with.

It is made below a stage and works from its final place: nothing in it names the stage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_COPIED: Final = ("pyproject.toml", "README.md", "client", "daemon")
"""What the wheel of cupola itself is made from, in a directory of its own: in the checkout,
setuptools would pick up modules that have long been deleted."""

_BUILDER: Final = "setuptools"

# What wheels bring along for developers, and records that stop being true without it.
_UNUSED_SUFFIXES: Final = {".c", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx"}
_UNUSED_NAMES: Final = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "py.typed"}
_UNUSED_DIRECTORIES: Final = {"_tests", "tests", "test", "includes", "isoschematron"}

_LAUNCHER: Final = """\
#!{interpreter} -I
import sys

from {module} import {function}

sys.exit({function}())
"""


class Project:
    """The checkout that is installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())

    @property
    def requirements(self) -> list[str]:
        """What client and daemon need to run."""
        project = self._table["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["daemon"]]

    @property
    def commands(self) -> dict[str, tuple[str, str]]:
        """Name of each command, with the module and the function that it calls."""
        scripts: dict[str, str] = self._table["project"]["scripts"]
        return {name: _module_and_function(entry) for name, entry in scripts.items()}

    @property
    def version(self) -> str:
        """The version of what is installed."""
        names: dict[str, str] = {}
        exec((self.root / "client/cupola/version.py").read_text(), names)  # noqa: S102
        return names["__version__"]


def _module_and_function(entry: str) -> tuple[str, str]:
    module, _, function = entry.partition(":")
    return module, function


def collect_wheels(project: Project, directory: Path) -> None:
    """Put wheels of everything that is needed into `directory`, in the pinned versions."""
    new = directory.with_name(f"{directory.name}.new")
    for old in (directory, new):
        shutil.rmtree(old, ignore_errors=True)
    _pip(
        *("wheel", "--wheel-dir", new),
        *("--constraint", project.root / ".ci/constraints.txt"),
        *(_BUILDER, *project.requirements),
    )
    new.rename(directory)


def make(project: Project, wheels: Path, stage: Path, home: Path, python: Path) -> None:
    """Make the environment whose place is `home`, below `stage`, from `wheels` alone."""
    made = stage / home.relative_to("/")
    with tempfile.TemporaryDirectory(prefix="cupola-wheel-") as directory:
        own = _own_wheel(project, wheels, Path(directory))
        subprocess.run([python, "-Im", "venv", "--without-pip", made], check=True)
        _pip(
            *("--python", made / "bin/python3"),
            *("install", "--no-index", "--find-links", wheels),
            *("--no-compile", "--no-warn-script-location"),
            f"cupola[daemon] @ {own.as_uri()}",
        )
    for program in (made / "bin").iterdir():
        if not program.name.startswith("python"):
            program.unlink()
    _remove_unused(made)
    for file in _files(made / "lib"):
        file.chmod(0o644)
    settings = made / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace(str(stage), ""))
    for name, (module, function) in project.commands.items():
        launcher = made / "bin" / name
        launcher.write_text(
            _LAUNCHER.format(interpreter=home / "bin/python3", module=module, function=function)
        )
        launcher.chmod(0o755)


def compile_modules(stage: Path, home: Path) -> None:
    """Compile what `make` has made, under the names that the files will have."""
    made = stage / home.relative_to("/")
    subprocess.run(
        [
            *(made / "bin/python3", "-Im", "compileall", "-q", "-j", str(os.cpu_count())),
            *("-s", stage, "-p", "/", "--invalidation-mode", "timestamp", made / "lib"),
        ],
        check=True,
    )


def _own_wheel(project: Project, wheels: Path, directory: Path) -> Path:
    """The wheel of cupola itself, made in `directory`."""
    source = directory / "source"
    source.mkdir()
    for name in _COPIED:
        path = project.root / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            shutil.copy(path, source)
    _pip(
        *("wheel", "--no-deps", "--no-index", "--find-links", wheels),
        *("--wheel-dir", directory, source),
    )
    (wheel,) = directory.glob("cupola-*.whl")
    return wheel


def _remove_unused(directory: Path) -> None:
    for path in list(_files(directory)):
        below = path.relative_to(directory)
        if (
            path.suffix in _UNUSED_SUFFIXES
            or path.name in _UNUSED_NAMES
            or _UNUSED_DIRECTORIES.intersection(below.parts[:-1])
        ):
            path.unlink()
    for name, _, _ in os.walk(directory, topdown=False):
        if not os.listdir(name):
            Path(name).rmdir()


def _files(directory: Path) -> Iterator[Path]:
    for path, _, names in os.walk(directory):
        for name in names:
            yield Path(path, name)


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-Im", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, arguments)], check=True)
