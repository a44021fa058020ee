"""One build: the place, and the only one, where the five steps are joined.

    bundle → spec → inputs → runc → ingest

Every resource is a context manager, so the way back is the way here, whatever happened on it.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from cupola.errors import BuildError
from cupola.messages import BuildOutput, BuildUsage
from cupolad import bundle, ingest, inputs
from cupolad.host.cgroups import CgroupLimits
from cupolad.host.uids import UidPool
from cupolad.launch import Launcher, StuckError
from cupolad.layout import BUILD_UID, Layout
from cupolad.logs import BuildLog
from cupolad.request import ValidRequest
from cupolad.runc import Exit, Job, Runtime
from cupolad.spec import SandboxSettings, make_spec
from cupolad.watch import RunLimits
from cupolad.workers.pool import WorkerPool

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Directories that all builds share."""

    state: Path
    bundles: Path
    stage: Path


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What one build may use."""

    group: CgroupLimits
    run: RunLimits
    ingest: float | None = None
    """Seconds that storing the outputs may take."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs builds, with what all of them share."""

    places: Places
    runtime: Runtime
    launcher: Launcher
    uids: UidPool
    input_servers: WorkerPool
    binders: WorkerPool
    ingesters: WorkerPool

    async def build(
        self,
        build_id: str,
        title: str,
        valid: ValidRequest,
        settings: SandboxSettings,
        limits: BuildLimits,
        log: BuildLog,
    ) -> tuple[tuple[BuildOutput, ...], BuildUsage]:
        """Run one build; its outputs, stored, and what it used. Administrators see `title`."""
        request = valid.request
        layout = Layout.plan(
            build_id,
            self.places.bundles,
            self.places.stage,
            valid.inputs_dir,
            request.inputs,
            valid.scratch_paths,
        )
        cgroup = self.launcher.cgroup(build_id)
        with self.uids.lease(unless=StuckError) as uids:
            async with bundle.created(layout, request, uids):
                async with inputs.mounted(
                    layout, self.places.state, uids.base, self.input_servers, self.binders
                ) as mount:
                    settings = replace(settings, limits=limits.group)
                    spec = make_spec(request, layout, uids, settings, cgroup.path)
                    await bundle.write_config(layout, spec)
                    job = Job(title, cgroup, limits.group, limits.run, uids.host(BUILD_UID))
                    end = await self.runtime.run(self.launcher, job, layout, log, mount)
                    await mount.check()
                await _check_exit(end, log)
                with _limited(limits.ingest):
                    outputs = await ingest.ingest(
                        layout,
                        valid.outputs,
                        request.refscan_needles,
                        uids,
                        self.places.state,
                        self.ingesters,
                    )
        return outputs, end.usage


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Let the block take so long at most; `timeout` if it is not done by then."""
    with trio.move_on_after(math.inf if seconds is None else seconds) as in_time:
        yield
    if in_time.cancelled_caught:
        raise BuildError(
            "timeout",
            f"storing the outputs took more than {seconds:g} s; the build may have made sparse files",
            limit=int(seconds or 0),
        )


async def _check_exit(end: Exit, log: BuildLog) -> None:
    """Raise `build_failed` unless the build's program ended well."""
    if end.code == 0:
        return
    if end.code is not None:
        how = f"exited with code {end.code}"
    else:
        assert end.signal is not None
        how = f"was killed by {_signal_name(end.signal)}"
    tail = await trio.to_thread.run_sync(log.tail, _TAIL_LINES, _TAIL_BYTES)
    raise BuildError(
        "build_failed",
        f"the build's program {how}",
        exit_code=end.code,
        signal=end.signal,
        log_tail=tail,
    )


def _signal_name(number: int) -> str:
    """What people call a signal; most of those for real time have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
