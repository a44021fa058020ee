"""A C toolchain in a directory of its own, assembled from Debian's packages.

Nothing of the host's /usr is used: the packages are fetched with everything they depend on and
unpacked side by side, links are made relative, and programs are told to find their loader and
libraries where the sandbox will show them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

PACKAGES: Final = ("gcc", "libc6-dev", "make", "busybox-static")
"""What is asked for; apt adds what these depend on."""

_DROPPED: Final = ("usr/share", "var", "etc", "usr/lib/x86_64-linux-gnu/perl-base")
_PROGRAMS: Final = ("usr/bin", "usr/sbin", "usr/libexec", "usr/lib/gcc")


class Debian:
    """The machine's Debian archive, with its sources, through an apt state of our own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("lists/partial", "archives/partial", "sources"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()
        (directory / "sources.list").write_text(_entries())
        self._apt("update")

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "APT::Sandbox::User": "root",
            "Dir::State::Lists": f"{self._directory}/lists",
            "Dir::State::status": f"{self._directory}/status",
            "Dir::Cache": f"{self._directory}",
            "Dir::Cache::archives": f"{self._directory}/archives",
            "Dir::Etc::SourceList": f"{self._directory}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Debug::NoLocking": "true",
        }
        command = ["apt-get", "--quiet=2", *(f"-o{key}={value}" for key, value in options.items())]
        done = subprocess.run(
            [*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"apt-get {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def packages(self, *names: str) -> list[Path]:
        """Fetch packages, with all that they depend on; the files."""
        self._apt("install", "--download-only", "--no-install-recommends", "--yes", *names)
        return sorted((self._directory / "archives").glob("*.deb"))

    def source(self, name: str) -> Path:
        """Fetch the original source archive of a source package."""
        self._apt("source", "--download-only", name, cwd=self._directory / "sources")
        (archive,) = (self._directory / "sources").glob("*.orig.tar.*[!c]")
        return archive


def _entries() -> str:
    """The machine's entries for its own release, each for packages and for sources."""
    release = dict(
        line.strip().split("=", 1) for line in Path("/etc/os-release").read_text().splitlines()
    )["VERSION_CODENAME"]
    lines = []
    for options, uri, suites, components in _configured():
        lines += [
            f"{kind} {options} {uri} {suite} {components}"
            for suite in suites
            if suite.startswith(release)
            for kind in ("deb", "deb-src")
        ]
    if not lines:
        raise RuntimeError(f"no archive of {release} is configured in /etc/apt")
    return "\n".join(lines) + "\n"


def _configured() -> list[tuple[str, str, list[str], str]]:
    """Options, address, suites and components of each entry in /etc/apt, in either format."""
    entries = []
    etc = Path("/etc/apt")
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else ():
            words = line.partition("#")[0].split()
            if words[:1] == ["deb"]:
                closing = next((i for i, word in enumerate(words) if word.endswith("]")), 0)
                uri, suite, *components = words[closing + 1 :]
                options = " ".join(words[1 : closing + 1])
                entries.append((options, uri, [suite], " ".join(components)))
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in file.read_text().split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in stanza.splitlines()
                if ": " in line and line[0] != "#"
            )
            if "deb" in fields.get("Types", "").split():
                signed = fields.get("Signed-By")
                options = f"[signed-by={signed}]" if signed else ""
                suites, components = fields["Suites"].split(), fields["Components"]
                entries += [(options, uri, suites, components) for uri in fields["URIs"].split()]
    return entries


def assemble(debian: Debian, target: Path, shown_as: str) -> None:
    """Make the toolchain at `target`; in the sandbox it will be at the absolute path `shown_as`."""
    target.mkdir()
    for package in debian.packages(*PACKAGES):
        subprocess.run(["dpkg-deb", "--extract", package, target], check=True)
    for name in _DROPPED:
        subprocess.run(["rm", "-rf", target / name], check=True)
    _make_links_relative(target)
    loader = next(target.glob("lib64/ld-linux-*.so.2"), None) or next(target.glob("lib/ld-*.so.1"))
    libraries = [directory for directory in ("lib", "usr/lib") if (target / directory).is_dir()]
    search = [
        f"{shown_as}/{directory.relative_to(target)}"
        for name in libraries
        for directory in sorted((target / name).glob("*-linux-gnu"))
    ]
    for name in _PROGRAMS:
        for program in sorted((target / name).rglob("*")):
            if _is_dynamic_program(program):
                subprocess.run(
                    [
                        "patchelf",
                        "--set-interpreter", f"{shown_as}/{loader.relative_to(target)}",
                        "--force-rpath", "--set-rpath", ":".join(search),
                        program,
                    ],
                    check=True,
                )  # fmt: skip


def _make_links_relative(root: Path) -> None:
    """Let links that start at / start at `root` instead, wherever that will be."""
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(directory, name)
            if path.is_symlink() and path.readlink().is_absolute():
                goal = root / path.readlink().relative_to("/")
                path.unlink()
                path.symlink_to(os.path.relpath(goal, directory))


def _is_dynamic_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return False
    shown = subprocess.run(
        ["patchelf", "--print-interpreter", path], capture_output=True, check=False
    )
    return shown.returncode == 0
