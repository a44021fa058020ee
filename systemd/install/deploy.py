"""Puts an image into the file system, and takes it away again.

What was put there is noted in a manifest beside the private environment, so that another version,
or `remove`, takes away exactly that.  A configuration that somebody has changed is never touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from places import CONFIGURATION, Places

_MANIFEST: Final = "manifest.json"


class NothingInstalledError(Exception):
    """There is no manifest where one should be."""


@dataclass
class _Manifest:
    """What an installation consists of: paths as installed programs see them."""

    files: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    """Those that were not there before, parents before children."""
    configuration: dict[str, str] = field(default_factory=dict)
    """Path and SHA-256 of each file that is the administrator's to change."""

    @classmethod
    def load(cls, file: Path) -> Self:
        return cls(**json.loads(file.read_text()))

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


class Target:
    """A file system to install into: `/`, or the directory of somebody who makes a package."""

    def __init__(self, root: Path, places: Places) -> None:
        self._root, self._places = root.absolute(), places
        self._manifest_file = self._at(places.environment) / _MANIFEST

    def put(self, stage: Path) -> None:
        """Install what lies below `stage`, in place of an earlier version."""
        old = _Manifest.load(self._manifest_file) if self._manifest_file.exists() else _Manifest()
        new = _Manifest(directories=old.directories)
        self._root.mkdir(parents=True, exist_ok=True)
        for place in _inside(stage):
            source, target = stage / place.relative_to("/"), self._at(place)
            if source.is_dir() and not source.is_symlink():
                if not target.is_dir():
                    target.mkdir(mode=0o755)
                    new.directories.append(str(place))
            elif place.is_relative_to(CONFIGURATION):
                self._put_configuration(source, place, old, new)
            else:
                _replace(source, target)
                new.files.append(str(place))
        for gone in set(old.files) - set(new.files):
            self._at(Path(gone)).unlink(missing_ok=True)
        new.save(self._manifest_file)

    def _put_configuration(self, source: Path, place: Path, old: _Manifest, new: _Manifest) -> None:
        target = self._at(place)
        known = old.configuration.get(str(place))
        if target.exists() and _digest(target) != known:
            print(f"{target} is kept as it is")
            if known is not None:
                new.configuration[str(place)] = known
            return
        _replace(source, target)
        new.configuration[str(place)] = _digest(target)

    def remove(self) -> None:
        """Take away what `put` has put there; NothingInstalledError if that is nothing."""
        if not self._manifest_file.exists():
            raise NothingInstalledError(f"nothing is installed in {self._manifest_file.parent}")
        manifest = _Manifest.load(self._manifest_file)
        for place in manifest.files:
            self._at(Path(place)).unlink(missing_ok=True)
        for place, digest in manifest.configuration.items():
            file = self._at(Path(place))
            if file.exists() and _digest(file) != digest:
                print(f"{file} was changed and is kept")
            else:
                file.unlink(missing_ok=True)
        # Nobody else's, and Python may have compiled modules anew in it.
        shutil.rmtree(self._at(self._places.environment))
        for place in reversed(manifest.directories):
            directory = self._at(Path(place))
            if directory.is_dir() and not os.listdir(directory):
                directory.rmdir()

    def _at(self, place: Path) -> Path:
        return self._root / place.relative_to("/")


def _inside(stage: Path) -> list[Path]:
    """The places of everything below `stage`, parents before children."""
    found = []
    for path, directories, files in os.walk(stage):
        found += [Path("/") / Path(path, name).relative_to(stage) for name in directories + files]
    return found


def _replace(source: Path, target: Path) -> None:
    """Copy a file or symlink; a program that runs from the old one is not disturbed."""
    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)
    shutil.copy2(source, new, follow_symlinks=False)
    new.replace(target)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
