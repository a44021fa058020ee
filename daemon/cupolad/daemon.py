"""The daemon's life, in order: what is taken at the start is given back, last first, at the end."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from cupolad import activation, bundle, ingest, inputs, runc
from cupolad.build import Builder, Places
from cupolad.config import Config, ConfigError
from cupolad.host import kernel, mounts
from cupolad.host.cgroups import Cgroup, Hierarchies, children
from cupolad.host.uids import UidPool
from cupolad.notify import Notifier
from cupolad.runc import Runtime
from cupolad.scheduler import Scheduler
from cupolad.server import Server
from cupolad.service import Service
from cupolad.store import Store, StoreLimits
from cupolad.workers.pool import WorkerPool
from cupolad.workers.process import ForkServer

_log = logging.getLogger(__name__)

_DIRECTORY_MODE: Final = 0o700
_IDLE_CHECKS: Final = 10
_KEPT_MEMORY: Final = 16 * 1024 * 1024


class StartError(Exception):
    """The daemon cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where the daemon lives, from the command line."""

    state: Path
    runtime: Path
    socket: Path
    reload: Callable[[], Config]
    """Reads the configuration again; ConfigError if it is of no use."""


def run(config: Config, options: Options) -> None:
    """Start, serve until told to stop, and leave nothing behind. Blocks; needs the main thread."""
    with ExitStack() as stack:
        notifier = Notifier()
        inherited = activation.take_inherited(os.environ)
        _require_root()
        kernel.keep_freed_memory(_KEPT_MEMORY)
        stack.enter_context(_directories(options))
        stack.enter_context(_locked(options.state))
        places = _enter_own_view(config, options)
        hierarchies = Hierarchies.detect()
        group = stack.enter_context(_cgroup_parent(hierarchies, options.state))
        runtime = Runtime(_find_runtime(config), options.runtime / "runc")
        _recover(places, runtime, hierarchies, group)
        Store.create(options.state)
        limits = _store_limits(config)
        store = Store(options.state, limits)
        stack.callback(store.close)
        kernel.adopt_orphans()
        fork_server = stack.enter_context(ForkServer([inputs.ROLE, ingest.ROLE]))
        listener = stack.enter_context(
            activation.listening(options.socket) if inherited is None else nullcontext(inherited)
        )
        trio.run(
            _Daemon(config, options, notifier).main,
            places,
            runtime,
            hierarchies,
            group,
            store,
            fork_server,
            listener,
        )


class _Daemon:
    """The part of the daemon's life that is asynchronous."""

    def __init__(self, config: Config, options: Options, notifier: Notifier) -> None:
        self._config, self._options, self._notifier = config, options, notifier
        self._stopping = trio.Event()
        self._hurry = trio.CancelScope()

    async def main(
        self,
        places: Places,
        runtime: Runtime,
        hierarchies: Hierarchies,
        group: str,
        store: Store,
        fork_server: ForkServer,
        listener: socket.socket,
    ) -> None:
        """Serve until a signal says stop, then drain."""
        config = self._config
        max_builds = config.scheduler.max_builds
        setup = {
            "state": str(places.state),
            "limits": {
                "depth": store.limits.depth,
                "entries": store.limits.entries,
                "directory_bytes": store.limits.directory_bytes,
            },
        }
        input_servers = WorkerPool(fork_server, inputs.ROLE, spare=1, reuse=False)
        ingesters = WorkerPool(fork_server, ingest.ROLE, spare=1, reuse=True, setup=setup)
        builder = Builder(
            places,
            runtime,
            hierarchies,
            group,
            UidPool(config.sandbox.uid_base, config.sandbox.uid_count),
            input_servers,
            ingesters,
        )
        scheduler = Scheduler(max_builds, config.limits.queued_builds)
        service = Service(config, platform.machine(), store, scheduler, builder)
        server = Server(service)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(input_servers.keep_ready)
            nursery.start_soon(ingesters.keep_ready)
            nursery.start_soon(server.serve, listener)
            await nursery.start(self._obey_signals, service)
            nursery.start_soon(self._stop_when_idle, service)
            self._notifier.ready()
            _log.info(
                "ready: at most %d builds at once, listening at %s",
                max_builds,
                listener.getsockname(),
            )
            await self._stopping.wait()
            self._notifier.stopping()
            server.stop()
            await self._drain(service)
            nursery.cancel_scope.cancel()
        _log.info("stopped")

    async def _drain(self, service: Service) -> None:
        """Let what runs end within the grace; the second signal cuts that short."""
        running, queued = service.scheduler.count()
        grace = service.config.daemon.drain
        if running or queued:
            _log.info("draining: %d builds run, %d wait, grace %g s", running, queued, grace)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._when_hurried, service.scheduler.cancel_all)
            await service.scheduler.drain(grace)
            nursery.cancel_scope.cancel()

    async def _when_hurried(self, act: Callable[[], None]) -> None:
        with self._hurry:
            await trio.sleep_forever()
        act()
        await trio.sleep_forever()

    async def _obey_signals(
        self, service: Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload(service)
                elif self._stopping.is_set():
                    _log.warning("second %s: leaving at once", signal.Signals(number).name)
                    self._hurry.cancel()
                else:
                    _log.info("%s: stopping", signal.Signals(number).name)
                    self._stopping.set()

    async def _reload(self, service: Service) -> None:
        """Apply the configuration anew; the old one stays in force if the new one is of no use."""
        try:
            config = await trio.to_thread.run_sync(self._options.reload)
        except ConfigError as error:
            _log.error("reload refused, nothing was changed: %s", error)
            return
        service.config = config
        service.scheduler.configure(config.scheduler.max_builds, config.limits.queued_builds)
        _log.info("configuration reloaded")

    async def _stop_when_idle(self, service: Service) -> None:
        while True:
            seconds = service.config.daemon.idle_exit
            await trio.sleep(max(seconds, 1) / _IDLE_CHECKS)
            idle_for = time.monotonic() - service.last_active
            if seconds and service.is_idle() and idle_for >= seconds:
                _log.info("idle for %g s: stopping", seconds)
                self._stopping.set()


# --- start-up, in order --------------------------------------------------------------------------


def _require_root() -> None:
    if os.geteuid() != 0:
        raise StartError("cupolad needs to be root: start it with systemctl, or with sudo")


@contextmanager
def _directories(options: Options) -> Iterator[None]:
    """Make the state and runtime directories."""
    try:
        options.state.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        options.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        (options.runtime / "runc").mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        (options.state / "bundles").mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make {error.filename}: {error.strerror}") from error
    yield


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the state directory for this daemon alone; the lock ends with the process."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartError(
            f"another cupolad uses {state}; stop it or choose another --state-dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def _enter_own_view(config: Config, options: Options) -> Places:
    """Enter the private mount namespace and make the stage."""
    try:
        mounts.enter_private_namespace()
        stage = mounts.make_stage(
            [options.state, options.runtime, options.socket, Path(config.sandbox.shell)]
        )
    except OSError as error:
        raise StartError(f"cannot make private mounts: {error.strerror or error}") from error
    return Places(options.state, options.state / "bundles", stage)


@contextmanager
def _cgroup_parent(hierarchies: Hierarchies, state: Path) -> Iterator[str]:
    """The cgroup of this daemon's builds; its name tells daemons of several state directories apart."""
    instance = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:8]
    group = f"/cupola-{instance}"
    try:
        yield group
    finally:
        for directory in hierarchies.directories(group):
            if directory.is_dir():
                directory.rmdir()


def _find_runtime(config: Config) -> str:
    path = shutil.which(config.sandbox.runtime, path=runc.ENVIRONMENT["PATH"])
    if path is None:
        raise StartError(f"sandbox.runtime {config.sandbox.runtime!r} was not found; install runc")
    if not os.access(config.sandbox.shell, os.X_OK):
        raise StartError(
            f"sandbox.shell {config.sandbox.shell} is not executable; install busybox-static or"
            " name another static shell"
        )
    return path


def _recover(places: Places, runtime: Runtime, hierarchies: Hierarchies, group: str) -> None:
    """Remove what a daemon that was killed has left: containers, cgroups, mounts, bundles."""
    leftover = children(hierarchies, group)
    for build_id in leftover:
        trio.run(runc.end, Cgroup(hierarchies, f"{group}/{build_id}"))
    forgotten = runtime.sweep()
    removed = bundle.sweep(places.bundles)
    if leftover or forgotten or removed:
        _log.warning(
            "removed what a killed daemon left: %d cgroups, %d containers, %d bundles",
            len(leftover),
            forgotten,
            removed,
        )


def _store_limits(config: Config) -> StoreLimits:
    limits = config.limits
    return StoreLimits(limits.directory_depth, limits.directory_entries, limits.directory_bytes)
