"""The configuration: TOML files, every key with its default, its check and where it came from.

`/etc/cupola/cupolad.toml` and then each `*.toml` in `cupolad.toml.d`, in the order of their names;
a later file wins key by key.  A key that is not known here is refused with file and key, so that a
typing error cannot loosen a limit.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cupola import framing
from cupolad.host.uids import UidPool
from cupolad.paths import HostPath

DEFAULT_PATH: Final = Path("/etc/cupola/cupolad.toml")

_MEMORY: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_SYSTEMS: Final = {
    "x86_64": ["x86_64-linux", "i686-linux"],
    "aarch64": ["aarch64-linux"],
}


class ConfigError(Exception):
    """The configuration cannot be used; the message names file and key."""


# --- checks of single values ---------------------------------------------------------------------


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value < 2**63:
        raise ValueError("must be a whole number above 0")
    return value


def _count_or_zero(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("must be a whole number, 0 or above")
    return value


def _frame_bytes(value: Any) -> int:
    if type(value) is not int or not framing.MIN_FRAME <= value < 2**32:
        raise ValueError(f"must be a whole number, {framing.MIN_FRAME} to 4294967295")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 10 * 365 * 86400:
        raise ValueError("must be a number of seconds, 0 or above")
    return float(value)


def _processors(value: Any) -> float:
    if type(value) not in (int, float) or not (value == 0 or 0.01 <= value <= 4096):
        raise ValueError("must be a number of processors, 0.01 or above, or 0 for no limit")
    return float(value)


def _absolute(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("must be text")
    return HostPath(value)


def _program(value: Any) -> str:
    """An absolute path, or a bare name to look up in the usual directories."""
    if type(value) is not str or not value or ("/" in value and not value.startswith("/")):
        raise ValueError("must be an absolute path or a bare name")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list or not all(type(item) is str and item for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def _host_paths(value: Any) -> tuple[str, ...]:
    return tuple(HostPath(path) for path in _texts(value))


def _no_names_yet(value: Any) -> tuple[str, ...]:
    if value != []:
        raise ValueError("must be empty: this version runs no builds with network access")
    return ()


def _mode(value: Any) -> str:
    if value != "fuse":
        raise ValueError('must be "fuse"')
    return str(value)


def _units(value: Any) -> str:
    if value not in ("auto", "never"):
        raise ValueError('must be "auto" or "never"')
    return str(value)


def _journal_logs(value: Any) -> str:
    if value not in ("all", "failures", "none"):
        raise ValueError('must be "all", "failures" or "none"')
    return str(value)


def _weight(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 10_000:
        raise ValueError("must be a whole number, 1 to 10000, or 0 to leave it to the system")
    return value


def _key(default: Any, check: Callable[[Any], Any], text: str) -> Any:
    """A key with its default, its check, and one line on what it means."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"check": check, "text": text})


# --- sections ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DaemonSection:
    """[daemon]: the daemon's own life."""

    idle_exit: float = _key(0.0, _seconds, "end after so many seconds without work; 0 = never")
    drain: float = _key(60.0, _seconds, "seconds that running builds get when the daemon stops")
    journal_logs: str = _key(
        "all", _journal_logs, 'builds whose logs go to the journal: "all", "failures" or "none"'
    )


@dataclass(frozen=True)
class SchedulerSection:
    """[scheduler]: how many builds at once."""

    max_builds: int = _key(lambda: os.cpu_count() or 1, _count, "builds that run at once")


@dataclass(frozen=True)
class SandboxSection:
    """[sandbox]: what every build runs in."""

    shell: str = _key("/bin/busybox", _absolute, "static shell for /bin/sh, a host path")
    runtime: str = _key("runc", _program, "the OCI runtime")
    uid_base: int = _key(0x34000000, _count, "first user and group id for builds")
    uid_count: int = _key(128 * 65536, _count, "ids for builds; each running one has 65,536")
    systems: tuple[str, ...] = _key(
        lambda: tuple(_SYSTEMS.get(platform.machine(), [f"{platform.machine()}-linux"])),
        _texts,
        "values of constraints.system that builds may have",
    )
    tmp_bytes: int = _key(_MEMORY // 4, _count, "size of /tmp; counts as memory of the build")
    shm_bytes: int = _key(_MEMORY // 4, _count, "size of /dev/shm; counts as memory of the build")
    units: str = _key("auto", _units, '"auto": a systemd unit for each build, "never": none')
    cpu_weight: int = _key(0, _weight, "share of processor time per build, of 100 for others")
    io_weight: int = _key(0, _weight, "share of disk time per build, of 100 for others")


@dataclass(frozen=True)
class LimitsSection:
    """[limits]: the most that a frame, a request, a build or a user may have; 0 = no limit."""

    memory: int = _key(_MEMORY * 3 // 4, _count_or_zero, "bytes of memory per build, without swap")
    processes: int = _key(4096, _count_or_zero, "processes and threads per build")
    cpus: float = _key(0.0, _processors, "processors per build")
    wall_seconds: float = _key(0.0, _seconds, "seconds that a build may run")
    silence_seconds: float = _key(0.0, _seconds, "seconds that a build may write no log")
    ingest_seconds: float = _key(3600.0, _seconds, "seconds that storing the outputs may take")
    log_bytes: int = _key(64 * 1024 * 1024, _count, "bytes of log per build")
    frame_bytes: int = _key(framing.MAX_FRAME, _frame_bytes, "bytes of one frame from a client")
    frame_seconds: float = _key(30.0, _seconds, "seconds for one frame to come in whole")
    connections: int = _key(64, _count, "open connections per user")
    queued_builds: int = _key(64, _count, "waiting and running builds per user")
    inputs: int = _key(20_000, _count, "inputs of a request")
    command_args: int = _key(4_096, _count, "command_args of a request")
    environment_vars: int = _key(4_096, _count, "environment_vars of a request")
    argument_bytes: int = _key(131_071, _count, "bytes of one argument or variable")
    arguments_bytes: int = _key(1024 * 1024, _count, "bytes of all arguments and variables")
    outputs: int = _key(256, _count, "outputs of a request")
    scratch_paths: int = _key(32, _count, "scratch_paths of a request")
    additional_files: int = _key(1_024, _count, "additional_files of a request")
    additional_files_bytes: int = _key(16 * 1024 * 1024, _count, "bytes of all additional_files")
    refscan_needles: int = _key(20_000, _count, "refscan_needles of a request")
    needle_bytes: int = _key(255, _count, "bytes of one needle")
    needles_bytes: int = _key(1024 * 1024, _count, "bytes of all needles of a request")
    available_ro_paths: int = _key(16, _count, "available_ro_paths of a request")
    blob_bytes: int = _key(64 * 1024**3, _count, "bytes of one blob")
    directory_bytes: int = _key(7 * 1024 * 1024, _count, "bytes of one encoded directory")
    directory_entries: int = _key(65_536, _count, "entries of one directory")
    directory_depth: int = _key(256, _count, "directories below each other")

    def named(self) -> dict[str, int]:
        """All limits as whole numbers (seconds rounded up), for clients to read."""
        return {f.name: -int(-getattr(self, f.name) // 1) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class PolicySection:
    """[policy]: what is granted, and to whom. Nothing by default."""

    network_access: tuple[str, ...] = _key((), _no_names_yet, "users and @groups with network")
    available_ro_paths: tuple[str, ...] = _key((), _host_paths, "host paths that builds may read")


@dataclass(frozen=True)
class InputsSection:
    """[inputs]: how builds see their inputs."""

    mode: str = _key("fuse", _mode, 'how inputs are served: "fuse"')


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "daemon": DaemonSection,
    "scheduler": SchedulerSection,
    "sandbox": SandboxSection,
    "limits": LimitsSection,
    "policy": PolicySection,
    "inputs": InputsSection,
}


@dataclass(frozen=True)
class Config:
    """The whole configuration. `origins` says which file set a key that has not its default."""

    daemon: DaemonSection = field(default_factory=DaemonSection)
    scheduler: SchedulerSection = field(default_factory=SchedulerSection)
    sandbox: SandboxSection = field(default_factory=SandboxSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    policy: PolicySection = field(default_factory=PolicySection)
    inputs: InputsSection = field(default_factory=InputsSection)
    origins: Mapping[str, Path] = field(default_factory=dict)

    def describe(self) -> Iterator[tuple[str, Any, str, str]]:
        """Key, value, where it came from and what it means, for each key."""
        for section in _SECTIONS:
            values = getattr(self, section)
            for key in dataclasses.fields(values):
                name = f"{section}.{key.name}"
                origin = str(self.origins.get(name, "default"))
                yield name, getattr(values, key.name), origin, key.metadata["text"]


def load(path: Path | None) -> Config:
    """The configuration in `path` and its drop-in directory; ConfigError if it is of no use.

    Without `path` the default file is read if it exists.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    origins: dict[str, Path] = {}
    for file in _files(path):
        for section, key, value in _read(file):
            values[section][key] = value
            origins[f"{section}.{key}"] = file
    sections = {name: kind(**values[name]) for name, kind in _SECTIONS.items()}
    config = Config(**sections, origins=origins)
    _check_together(config)
    return config


def _files(path: Path | None) -> list[Path]:
    main = path or DEFAULT_PATH
    found = [main] if path is not None or main.exists() else []
    drop_ins = main.with_name(f"{main.name}.d")
    if drop_ins.is_dir():
        found += sorted(drop_ins.glob("*.toml"))
    return found


def _read(file: Path) -> Iterator[tuple[str, str, Any]]:
    """Section, key and checked value of each line of one file."""
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    for section, keys in content.items():
        if section not in _SECTIONS or not isinstance(keys, dict):
            known = ", ".join(f"[{name}]" for name in _SECTIONS)
            raise ConfigError(f"{file}: unknown section [{section}]; known are {known}")
        fields = {key.name: key for key in dataclasses.fields(_SECTIONS[section])}
        for key, value in keys.items():
            if key not in fields:
                raise ConfigError(f"{file}: unknown key {section}.{key}")
            try:
                yield section, key, fields[key].metadata["check"](value)
            except ValueError as error:
                raise ConfigError(f"{file}: {section}.{key} {error}") from None


def _check_together(config: Config) -> None:
    """What no key can say alone."""
    origin = config.origins.get
    try:
        pool = UidPool(config.sandbox.uid_base, config.sandbox.uid_count)
    except ValueError as error:
        file = origin("sandbox.uid_base") or origin("sandbox.uid_count")
        raise ConfigError(f"{file}: sandbox.uid_base, sandbox.uid_count: {error}") from None
    if pool.size < config.scheduler.max_builds:
        raise ConfigError(
            f"scheduler.max_builds is {config.scheduler.max_builds}, but sandbox.uid_count is"
            f" enough for {pool.size} builds at once; give {65536} ids a build"
        )
    # A directory has to fit into a frame, on its way in and on its way out.
    room = min(config.limits.frame_bytes, framing.MAX_FRAME) - framing.OVERHEAD
    if config.limits.directory_bytes > room:
        raise ConfigError(
            f"limits.directory_bytes must be at most limits.frame_bytes - {framing.OVERHEAD},"
            f" and at most {framing.MAX_FRAME - framing.OVERHEAD}"
        )
