"""What every connection shares: the parts of the daemon, put together, and the limits in force."""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from cupola.messages import StatusReport
from cupola.version import __version__
from cupolad.build import Builder, BuildLimits
from cupolad.config import Config
from cupolad.host.cgroups import CgroupLimits
from cupolad.journal import Journal
from cupolad.peers import Peer
from cupolad.request import Policy, RequestLimits
from cupolad.scheduler import Scheduler
from cupolad.spec import SandboxSettings
from cupolad.store import Store
from cupolad.watch import RunLimits

VERSION: Final = 1
"""The protocol version that this daemon speaks."""

SERVER: Final = f"cupolad {__version__}"

_THREADS: Final = 8
_THREADS_PER_USER: Final = 2
_OPEN_FILES: Final = 65_536
"""Hard limit of open files in a build, unless the daemon itself has a lower one."""


@dataclass(slots=True)
class Service:
    """The daemon as its connections see it."""

    config: Config
    machine: str
    store: Store
    scheduler: Scheduler
    builder: Builder
    journal: Journal | None = None
    """Where builds' logs go besides; None where there is no journal."""
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_THREADS))
    """For work on the store, so that it cannot take the threads of clean-up."""
    decoding: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    """For large frames: what they become must not fill the memory all at once."""
    connections: Counter[int] = field(default_factory=Counter)
    """Open connections of each user."""
    shares: dict[int, trio.CapacityLimiter] = field(default_factory=dict)
    """How many threads a user who is connected may occupy, so that there are some for others."""
    started: float = field(default_factory=time.monotonic)
    last_active: float = field(default_factory=time.monotonic)

    def request_limits(self) -> RequestLimits:
        """The limits of one request."""
        named = self.config.limits.named()
        return RequestLimits(**{name: named[name] for name in RequestLimits.__slots__})

    def policy(self, peer: Peer) -> Policy:
        """What is granted to `peer`."""
        del peer  # nothing is granted by user in this version
        config = self.config
        return Policy(
            systems=config.sandbox.systems,
            memory=config.limits.memory or None,
            network_access=False,
            available_ro_paths=frozenset(config.policy.available_ro_paths),
        )

    def settings(self) -> SandboxSettings:
        """What every sandbox has."""
        sandbox = self.config.sandbox
        return SandboxSettings(
            shell=sandbox.shell,
            machine=self.machine,
            tmp_bytes=sandbox.tmp_bytes,
            shm_bytes=sandbox.shm_bytes,
            open_files=min(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            limits=self.build_limits().group,
        )

    def build_limits(self) -> BuildLimits:
        """What one build may use."""
        limits, sandbox = self.config.limits, self.config.sandbox
        return BuildLimits(
            CgroupLimits(
                limits.memory or None,
                limits.processes or None,
                limits.cpus or None,
                sandbox.cpu_weight or None,
                sandbox.io_weight or None,
            ),
            RunLimits(limits.wall_seconds or None, limits.silence_seconds or None),
            limits.ingest_seconds or None,
        )

    def share(self, peer: Peer) -> trio.CapacityLimiter:
        """The threads of one user."""
        return self.shares.setdefault(peer.uid, trio.CapacityLimiter(_THREADS_PER_USER))

    def is_idle(self) -> bool:
        """Whether nobody is connected and nothing is built."""
        return not self.connections and not any(True for _ in self.scheduler.jobs())

    async def report(self, peer: Peer) -> StatusReport:
        """The status as `peer` may see it."""
        totals = await trio.to_thread.run_sync(self.store.totals, limiter=self.threads)
        running, queued = self.scheduler.count()
        return StatusReport(
            server=SERVER,
            uptime_ms=int((time.monotonic() - self.started) * 1000),
            max_builds=self.scheduler.max_builds,
            running=running,
            queued=queued,
            connections=self.connections.total(),
            store_blobs=totals.blobs,
            store_directories=totals.directories,
            store_bytes=totals.bytes,
            draining=self.scheduler.draining,
            limits=self.config.limits.named(),
            builds=tuple(
                job.describe()
                for job in self.scheduler.jobs()
                if not job.ended.is_set() and (peer.is_root or job.uid == peer.uid)
            ),
        )
