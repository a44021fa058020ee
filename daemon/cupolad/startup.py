"""The steps of the daemon's start-up that touch the machine, each with its undo.

Their order is `daemon.py`'s.  What cannot be had is a StartError that says what to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cupola.errors import HostError
from cupolad import activation, events, runc
from cupolad.build import Places
from cupolad.config import Config
from cupolad.host import kernel, mounts
from cupolad.host.cgroups import Hierarchies
from cupolad.launch import ChildLauncher, Launcher, UnitLauncher
from cupolad.launch.systemd import Systemd
from cupolad.runc import Runtime
from cupolad.workers.pool import WorkerPool

_PRIVATE: Final = 0o700
_UMASK: Final = 0o022
_KEPT_MEMORY: Final = 16 * 1024 * 1024


class StartError(Exception):
    """The daemon cannot start; the message says why and what to do."""


class InUseError(StartError):
    """Another daemon runs on the state directory."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where the daemon lives, from the command line."""

    state: Path
    runtime: Path
    socket: Path
    reload: Callable[[], Config]
    """Reads the configuration again; ConfigError if it is of no use."""


def prepare_process() -> None:
    """Check and set what this process and its children have in common."""
    if os.geteuid() != 0:
        raise StartError("cupolad needs to be root: start it with systemctl, or with sudo")
    os.umask(_UMASK)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kernel.keep_freed_memory(_KEPT_MEMORY)
    kernel.adopt_orphans()


def make_directories(options: Options) -> None:
    """Make the state and runtime directories."""
    try:
        options.state.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        options.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        (options.runtime / "runc").mkdir(mode=_PRIVATE, exist_ok=True)
        (options.state / "bundles").mkdir(mode=_PRIVATE, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make {error.filename}: {error.strerror}") from error
    for directory in (options.state, options.runtime):
        _check_trusted(directory)
    options.state.chmod(_PRIVATE)


def _check_trusted(directory: Path) -> None:
    """Refuse a directory that others than root own, or could put another one in place of."""
    for path in (directory, *directory.parents):
        status = path.stat()
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid != 0 or (others and not status.st_mode & stat.S_ISVTX):
            raise StartError(
                f"{path} must belong to root and be writable by nobody else: it holds, or leads"
                f" to, what the daemon trusts; correct it, or choose another directory"
            )


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory for this daemon alone; the lock ends with the process."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUseError(
            f"another cupolad uses {state}; stop it or choose another --state-dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def enter_own_view(config: Config, options: Options) -> Places:
    """Enter the private mount namespace and make the stage."""
    in_use = [options.state, options.runtime, options.socket, Path(config.sandbox.shell)]
    in_use += map(Path, config.policy.available_ro_paths)
    if "/" in config.sandbox.runtime:
        in_use.append(Path(config.sandbox.runtime))
    try:
        mounts.enter_private_namespace()
        stage = mounts.make_stage(in_use)
    except OSError as error:
        raise StartError(f"cannot make private mounts: {error.strerror or error}") from error
    return Places(options.state, options.state / "bundles", stage)


@contextmanager
def cgroup_parent(hierarchies: Hierarchies, state: Path) -> Iterator[str]:
    """The cgroup of this daemon's builds; its name tells daemons of several state directories apart."""
    instance = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:8]
    group = f"/cupola-{instance}"
    try:
        yield group
    finally:
        for directory in hierarchies.directories(group):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                events.CGROUP_LEFT.tell(cgroup=directory, reason=error.strerror)


def find_runtime(config: Config, options: Options) -> Runtime:
    """The OCI runtime, after a check that it and the sandbox shell are there."""
    path = shutil.which(config.sandbox.runtime, path=runc.ENVIRONMENT["PATH"])
    if path is None:
        raise StartError(f"sandbox.runtime {config.sandbox.runtime!r} was not found; install runc")
    if not os.access(config.sandbox.shell, os.X_OK):
        raise StartError(
            f"sandbox.shell {config.sandbox.shell} is not executable; install busybox-static or"
            " name another static shell"
        )
    return Runtime(path, options.runtime / "runc")


async def find_launcher(
    config: Config, hierarchies: Hierarchies, helpers: WorkerPool, group: str
) -> Launcher:
    """How builds are started: as units of the systemd that started this daemon, if it did.

    Otherwise, or if it does not answer, as children in cgroups below `group`.
    """
    if config.sandbox.units == "auto" and activation.is_service(os.environ):
        try:
            return UnitLauncher(hierarchies, await Systemd.connect(helpers))
        except HostError as error:
            events.NO_UNITS.tell(reason=error.message)
    return ChildLauncher(hierarchies, group)
