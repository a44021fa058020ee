"""Whether runc is there, new enough, and free of a flaw that lets builds out.

1.1 is the first runc that can make mounts read-only with all below them (`rro`).  Flaws are listed
if a build could use them in spite of its user namespace and of having no capability.  A
distribution mends flaws without raising the version, so its package has the last word.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cupola.doctor import settings
from cupola.doctor.finding import Finding, ok, problem, warning
from cupola.doctor.system import ProgramError, System

Version = tuple[int, int, int]

_NEEDED: Final[Version] = (1, 1, 0)
_ELSEWHERE: Final = ("/usr/local/sbin", "/usr/local/bin")


@dataclass(frozen=True, slots=True)
class _Flaw:
    """A known vulnerability."""

    name: str
    effect: str
    fixed: Version
    """The first version of runc without it."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """By what a package's version begins with: the first package without it."""


_FLAWS: Final = (
    _Flaw(
        "CVE-2024-21626",
        "a build could get at the files of the host by its working directory",
        (1, 1, 12),
        {"1.1.5+ds1-": "1.1.5+ds1-1+deb12u1"},
    ),
)


def check_runtime(system: System) -> Finding:
    """Whether the runtime that the daemon would find is one that builds can be run with."""
    name = settings.programs(system).runtime
    path = system.find_program(name)
    if path is None:
        return _absent(system, name)
    output = system.run([path, "--version"])
    if output.status != 0:
        return problem(f"{path} does not run: {output.complaint}", system.installing("runc"))
    found = re.match(r"runc version (\d+)\.(\d+)(?:\.(\d+))?\S*", output.out)
    if found is None:
        return warning(
            f"{path} does not call itself runc, which alone cupola is tried with",
            f"{system.installing('runc')}, and name it in {settings.CONFIGURATION} as"
            ' `runtime = "runc"` of [sandbox]',
        )
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    called = f"{path} is {found[0].replace(' version', '')}"
    if version < _NEEDED:
        return problem(
            f"{called}, which is too old: read-only mounts of whole trees need 1.1",
            f"{system.installing('runc')}, from a release of the distribution that has 1.1",
        )
    return _flawed(system, path, called, version) or ok(called)


def _absent(system: System, name: str) -> Finding:
    for directory in _ELSEWHERE:
        elsewhere = f"{directory}/{name}"
        if system.path(elsewhere).exists():
            return problem(
                f"{name} is {elsewhere}, where the daemon does not look",
                f'write `runtime = "{elsewhere}"` below [sandbox] into {settings.CONFIGURATION},'
                " then `sudo systemctl restart cupolad`",
            )
    return problem(f"{name}, which runs builds, is not installed", system.installing("runc"))


def _flawed(system: System, path: str, called: str, version: Version) -> Finding | None:
    """What is to be said of known flaws, if anything."""
    open_flaws = [flaw for flaw in _FLAWS if version < flaw.fixed]
    if not open_flaws:
        return None
    package = _Package.of(system, path)
    if package is not None and all(package.mends(system, flaw) for flaw in open_flaws):
        names = ", ".join(flaw.name for flaw in open_flaws)
        return ok(f"{called}; its package {package.version} mends {names}")
    flaw = next(f for f in open_flaws if package is None or not package.mends(system, f))
    fixed = ".".join(map(str, flaw.fixed))
    seen = "" if package is None else f", and the package {package.version} does not say otherwise"
    return warning(
        f"{called}, and up to {fixed} {flaw.effect} ({flaw.name}){seen}",
        f"upgrade runc to {fixed} or later, or to a package that mends {flaw.name}:"
        f" {system.installing('runc')}",
    )


@dataclass(frozen=True, slots=True)
class _Package:
    """The Debian package that a program belongs to."""

    name: str
    version: str

    @classmethod
    def of(cls, system: System, path: str) -> _Package | None:
        """The package that brought `path`; None if none did, or there is no dpkg."""
        try:
            owner = system.run(["dpkg-query", "--search", path])
            if owner.status != 0:
                return None
            name = re.split("[:,]", owner.out)[0]
            shown = system.run(["dpkg-query", "--show", "--showformat=${Version}", name])
        except ProgramError:
            return None
        return cls(name, shown.out.strip()) if shown.status == 0 else None

    def mends(self, system: System, flaw: _Flaw) -> bool:
        """Whether its list of changes names the flaw, or its version is known to be without it."""
        changes = system.path(f"/usr/share/doc/{self.name}/changelog.Debian.gz")
        try:
            if flaw.name.encode() in gzip.decompress(changes.read_bytes()):
                return True
        except (OSError, EOFError):
            pass  # documentation is left out of many images
        return any(
            self.version.startswith(beginning) and self._is_at_least(system, fixed)
            for beginning, fixed in flaw.packages.items()
        )

    def _is_at_least(self, system: System, version: str) -> bool:
        command = ["dpkg", "--compare-versions", self.version, "ge", version]
        return system.run(command).status == 0
