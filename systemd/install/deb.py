"""The Debian package: the image with what the distribution's policy asks for, by dpkg's own tools.

The same checkout and the same wheels make the same package, byte for byte: no file is younger than
the moment that is given, and no file knows where it was made.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Final

import licenses
from environment import Project
from image import Image
from places import CONFIGURATION, Places

_PLACES: Final = Places(
    bin=Path("/usr/bin"),
    lib=Path("/usr/lib"),
    share=Path("/usr/share"),
    units=Path("/lib/systemd/system"),
    zsh=Path("/usr/share/zsh/vendor-completions"),
)
_SCRIPTS: Final = ("postinst", "prerm", "postrm")
_STARTED: Final = {".socket", ".timer"}
"""Units that run from the installation on; they start the others."""

_CHANGELOG: Final = """\
cupola ({version}) unstable; urgency=medium

  * See CHANGELOG.md in this directory.

 -- {maintainer}  {date}
"""


def build(project: Project, wheels: Path, python: Path, into: Path, epoch: int) -> Path:
    """Make the package in the directory `into`; its path."""
    with tempfile.TemporaryDirectory(prefix="cupola-deb-") as directory:
        source = Path(directory).resolve() / "source"
        shutil.copytree(project.root / "systemd/debian", source / "debian")
        package = _Package(project, source, epoch)
        package.add_image(wheels, python)
        package.add_what_policy_asks_for()
        package.add_control()
        into.mkdir(parents=True, exist_ok=True)
        return package.write(into)


class _Package:
    """A package in the making, in `source/debian/cupola`, which is its root."""

    def __init__(self, project: Project, source: Path, epoch: int) -> None:
        self._source, self._epoch = source, epoch
        self._debian = source / "debian"
        self._image = Image(project, _PLACES, self._debian / "cupola")
        self._doc = self._image.below(_PLACES.doc)
        self._version = _debian_version(project.version)

    def add_image(self, wheels: Path, python: Path) -> None:
        """Add what every installation has; Debian compiles modules when it unpacks them."""
        self._image.make(wheels, python)
        python_version = self._run(python, "-Ic", "import sys; print(*sys.version_info[:2])")
        self._python = tuple(map(int, python_version.split()))

    def add_what_policy_asks_for(self) -> None:
        """Strip objects, compress pages, and add the files that every package has."""
        self._strip()
        self._make_interpreter_relative()
        (self._doc / "LICENSE").unlink()  # /usr/share/common-licenses has it
        (packages,) = self._image.below(_PLACES.environment).glob("lib/python3*/site-packages")
        head = (self._debian / "copyright").read_text()
        (self._doc / "copyright").write_text(licenses.gather(head, packages))
        changelog = self._write_changelog()
        _compress(changelog, self._doc / "changelog.gz")
        for page in [*self._image.below(_PLACES.man).glob("*/*")]:
            _compress(page, page.with_name(f"{page.name}.gz"))
            page.unlink()
        overrides = self._image.below(_PLACES.share / "lintian/overrides/cupola")
        overrides.parent.mkdir(parents=True)
        shutil.copyfile(self._debian / "lintian-overrides", overrides)

    def add_control(self) -> None:
        """Add what dpkg reads: dependencies, scripts, sums."""
        control = self._image.below(Path("/DEBIAN"))
        control.mkdir(mode=0o755)
        major, minor = self._python
        self._run("dpkg-shlibdeps", "--warnings=0", "-Tdebian/substvars", *self._objects())
        self._run(
            "dpkg-gencontrol",
            *("-pcupola", "-Pdebian/cupola", "-Tdebian/substvars"),
            f"-Vpython3:Depends=python3 (>= {major}.{minor}~), python3 (<< {major}.{minor + 1}~)",
        )
        started = [unit for unit in self._image.units() if Path(unit).suffix in _STARTED]
        for name in _SCRIPTS:
            text = (self._debian / name).read_text()
            text = text.replace("@PYTHON@", f"{major}.{minor}")
            text = text.replace("@UNITS@", " ".join(started))
            (control / name).write_text(text)
            (control / name).chmod(0o755)
        (control / "conffiles").write_text(f"{CONFIGURATION / 'cupolad.toml'}\n")
        root = self._image.below(Path("/"))
        files = sorted(path for path in _files(root) if not path.is_relative_to(control))
        sums = (
            f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"
            f"  {path.relative_to(root)}\n"
            for path in files
        )
        (control / "md5sums").write_text("".join(sums))

    def write(self, into: Path) -> Path:
        """Write the archive."""
        root = self._image.below(Path("/"))
        for path, directories, files in os.walk(root):
            for name in [*directories, *files, "."]:
                os.utime(Path(path, name), (self._epoch, self._epoch), follow_symlinks=False)
        architecture = self._run("dpkg", "--print-architecture").strip()
        made = into / f"cupola_{self._version}_{architecture}.deb"
        self._run("dpkg-deb", "--root-owner-group", "--build", root, made.absolute())
        return made

    # --- parts -----------------------------------------------------------------------------------

    def _objects(self) -> list[Path]:
        root = self._image.below(_PLACES.environment)
        return sorted(path for path in _files(root) if re.search(r"\.so(\.|$)", path.name))

    def _strip(self) -> None:
        """Leave no trace of where and when an object was compiled."""
        sections = (".comment", ".note", ".note.gnu.build-id")
        removed = [f"--remove-section={name}" for name in sections]
        self._run("strip", "--strip-unneeded", *removed, *self._objects())

    def _make_interpreter_relative(self) -> None:
        interpreter = self._image.below(_PLACES.interpreter)
        target = os.path.relpath(interpreter.readlink(), _PLACES.interpreter.parent)
        interpreter.unlink()
        interpreter.symlink_to(target)

    def _write_changelog(self) -> Path:
        control = (self._debian / "control").read_text()
        (maintainer,) = re.findall(r"^Maintainer: (.*)$", control, re.MULTILINE)
        file = self._debian / "changelog"
        file.write_text(
            _CHANGELOG.format(
                version=self._version, maintainer=maintainer, date=formatdate(self._epoch)
            )
        )
        return file

    def _run(self, *command: str | Path) -> str:
        """What a program prints."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(self._epoch)}
        done = subprocess.run(
            list(map(str, command)),
            cwd=self._source,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


def _debian_version(version: str) -> str:
    """The version, so that dpkg takes a release for newer than what led to it."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", version)


def _files(directory: Path) -> Iterable[Path]:
    """All regular files below."""
    for path, _, names in os.walk(directory):
        for name in names:
            file = Path(path, name)
            if not file.is_symlink():
                yield file


def _compress(source: Path, target: Path) -> None:
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(source.read_bytes())
