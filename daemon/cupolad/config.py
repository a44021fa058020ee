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
from cupolad import keychecks
from cupolad.host.uids import UidPool

DEFAULT_PATH: Final = Path("/etc/cupola/cupolad.toml")

_MEMORY: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_SYSTEMS: Final = {
    "x86_64": ["x86_64-linux", "i686-linux"],
    "aarch64": ["aarch64-linux"],
}


class ConfigError(Exception):
    """The configuration cannot be used; the message names file and key."""


NEED_RESTART: Final = (
    "sandbox.shell",
    "sandbox.runtime",
    "sandbox.uid_base",
    "sandbox.uid_count",
    "sandbox.units",
    "limits.blob_bytes",
    "limits.directory_bytes",
    "limits.directory_entries",
    "limits.directory_depth",
    "policy.available_ro_paths",
)
"""Keys that a running daemon cannot change."""


def _key(default: Any, check: Callable[[Any], Any], text: str) -> Any:
    """A key with its default, its check, and one line on what it means."""
    factory = default if callable(default) else lambda: default
    return field(default_factory=factory, metadata={"check": check, "text": text})


# --- sections ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DaemonSection:
    """[daemon]: the daemon's own life."""

    idle_exit: float = _key(
        0.0, keychecks.seconds, "end after so many seconds without work; 0 = never"
    )
    drain: float = _key(
        60.0, keychecks.seconds, "seconds that running builds get when the daemon stops"
    )
    journal_logs: str = _key(
        "all",
        keychecks.journal_logs,
        'builds whose logs go to the journal: "all", "failures" or "none"',
    )


@dataclass(frozen=True)
class SchedulerSection:
    """[scheduler]: how many builds at once."""

    max_builds: int = _key(lambda: os.cpu_count() or 1, keychecks.count, "builds that run at once")


@dataclass(frozen=True)
class SandboxSection:
    """[sandbox]: what every build runs in."""

    shell: str = _key("/bin/busybox", keychecks.absolute, "static shell for /bin/sh, a host path")
    runtime: str = _key("runc", keychecks.program, "the OCI runtime")
    uid_base: int = _key(0x34000000, keychecks.count, "first user and group id for builds")
    uid_count: int = _key(
        128 * 65536, keychecks.count, "ids for builds; each running one has 65,536"
    )
    systems: tuple[str, ...] = _key(
        lambda: tuple(_SYSTEMS.get(platform.machine(), [f"{platform.machine()}-linux"])),
        keychecks.texts,
        "values of constraints.system that builds may have",
    )
    tmp_bytes: int = _key(
        _MEMORY // 4, keychecks.count, "size of /tmp; counts as memory of the build"
    )
    shm_bytes: int = _key(
        _MEMORY // 4, keychecks.count, "size of /dev/shm; counts as memory of the build"
    )
    units: str = _key(
        "auto", keychecks.units, '"auto": a systemd unit for each build, "never": none'
    )
    cpu_weight: int = _key(
        0, keychecks.weight, "share of processor time per build, of 100 for others"
    )
    io_weight: int = _key(0, keychecks.weight, "share of disk time per build, of 100 for others")


@dataclass(frozen=True)
class LimitsSection:
    """[limits]: the most that a frame, a request, a build or a user may have."""

    memory: int = _key(
        _MEMORY * 3 // 4, keychecks.count_or_zero, "bytes of memory per build, without swap"
    )
    processes: int = _key(4096, keychecks.count_or_zero, "processes and threads per build")
    cpus: float = _key(0.0, keychecks.processors, "processors per build")
    wall_seconds: float = _key(0.0, keychecks.seconds, "seconds that a build may run")
    silence_seconds: float = _key(0.0, keychecks.seconds, "seconds that a build may write no log")
    ingest_seconds: float = _key(
        3600.0, keychecks.seconds, "seconds that storing the outputs may take"
    )
    log_bytes: int = _key(64 * 1024 * 1024, keychecks.count, "bytes of log per build")
    frame_bytes: int = _key(
        framing.MAX_FRAME, keychecks.frame_bytes, "bytes of one frame from a client"
    )
    frame_seconds: float = _key(30.0, keychecks.seconds, "seconds for one frame to come in whole")
    connections: int = _key(64, keychecks.count, "open connections per user")
    queued_builds: int = _key(64, keychecks.count, "waiting and running builds per user")
    inputs: int = _key(20_000, keychecks.count, "inputs of a request")
    command_args: int = _key(4_096, keychecks.count, "command_args of a request")
    environment_vars: int = _key(4_096, keychecks.count, "environment_vars of a request")
    argument_bytes: int = _key(131_071, keychecks.count, "bytes of one argument or variable")
    arguments_bytes: int = _key(
        1024 * 1024, keychecks.count, "bytes of all arguments and variables"
    )
    outputs: int = _key(256, keychecks.count, "outputs of a request")
    scratch_paths: int = _key(32, keychecks.count, "scratch_paths of a request")
    additional_files: int = _key(1_024, keychecks.count, "additional_files of a request")
    additional_files_bytes: int = _key(
        16 * 1024 * 1024, keychecks.count, "bytes of all additional_files"
    )
    refscan_needles: int = _key(20_000, keychecks.count, "refscan_needles of a request")
    needle_bytes: int = _key(255, keychecks.count, "bytes of one needle")
    needles_bytes: int = _key(1024 * 1024, keychecks.count, "bytes of all needles of a request")
    available_ro_paths: int = _key(16, keychecks.count, "available_ro_paths of a request")
    blob_bytes: int = _key(64 * 1024**3, keychecks.count, "bytes of one blob")
    directory_bytes: int = _key(7 * 1024 * 1024, keychecks.count, "bytes of one encoded directory")
    directory_entries: int = _key(65_536, keychecks.count, "entries of one directory")
    directory_depth: int = _key(256, keychecks.count, "directories below each other")

    def named(self) -> dict[str, int]:
        """All limits as whole numbers (seconds rounded up), for clients to read."""
        return {f.name: -int(-getattr(self, f.name) // 1) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class PolicySection:
    """[policy]: what is granted, and to whom. Nothing by default."""

    network_access: tuple[str, ...] = _key(
        (), keychecks.no_names_yet, "users and @groups with network"
    )
    available_ro_paths: tuple[str, ...] = _key(
        (), keychecks.host_paths, "host paths that builds may read"
    )


@dataclass(frozen=True)
class InputsSection:
    """[inputs]: how builds see their inputs."""

    mode: str = _key("fuse", keychecks.mode, 'how inputs are served: "fuse"')


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

    def reloaded(self, new: Config) -> tuple[Config, list[str]]:
        """What is in force after a reload of `new`, and the keys that change at a restart only."""
        changed = []
        for name in NEED_RESTART:
            section, key = name.split(".")
            old = getattr(getattr(self, section), key)
            if getattr(getattr(new, section), key) != old:
                changed.append(name)
                values = dataclasses.replace(getattr(new, section), **{key: old})
                new = dataclasses.replace(new, **{section: values})
        return new, changed


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
