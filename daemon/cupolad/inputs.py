"""The third step: a build's inputs as a read-only FUSE mount, served by a process of its own.

The daemon mounts, watches and unmounts; it never touches a path below the mount, because a
request that nobody answers would hang it.  If the server is stuck or dead, the connection is
aborted, the process killed and the mount detached, in this order, and that build alone fails.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from cupola import wire
from cupola.errors import infrastructure
from cupolad import events
from cupolad.host import files, kernel, mounts
from cupolad.layout import Layout
from cupolad.workers.pool import WorkerPool
from cupolad.workers.process import Worker

SERVER: Final = "cupolad.workers.fuse:serve"
BINDER: Final = "cupolad.workers.binds:serve"
"""The roles of this step's helpers."""

_REPORT_SECONDS: Final = 10
_UNMOUNT_SECONDS: Final = 15
_BIND_SECONDS: Final = 60
_MAX_READ: Final = 128 * 1024


class MountedInputs:
    """A live input mount; `server` is None where the build has no inputs."""

    def __init__(
        self, layout: Layout, server: Worker | None = None, minor: int | None = None
    ) -> None:
        self._layout, self._server, self._minor = layout, server, minor

    def abort(self) -> None:
        """Fail every access, pending or future, so that no process can be stuck in one."""
        if self._minor is not None:
            mounts.abort_fuse(self._layout.stage, self._minor)

    async def failed(self) -> None:
        """Return when the server is dead; wait for ever while it lives."""
        if self._server is None:
            await trio.sleep_forever()
        else:
            await self._server.ended()

    async def check(self) -> None:
        """Ask the server how it went, after the build has ended.

        `infrastructure` if it met a single error that a build could have noticed, or is gone.
        """
        if self._server is None:
            return
        with trio.move_on_after(_REPORT_SECONDS):
            await self._server.send({})
            report = await self._server.receive()
            if report["fault_count"]:
                reason = f"{report['fault_count']} faults: {report['faults']}"
                events.INPUTS_FAILED.tell(build_id=self._layout.build_id, reason=reason)
                raise infrastructure(
                    f"{report['fault_count']} accesses to the inputs failed in the daemon;"
                    " its log says why, tell the administrator",
                    retryable=False,
                )
            return
        raise infrastructure("the server of the inputs does not answer", retryable=True)


@asynccontextmanager
async def mounted(
    layout: Layout, state: Path, owner: int, servers: WorkerPool, binders: WorkerPool
) -> AsyncIterator[MountedInputs]:
    """The inputs of a build, mounted at `layout.inputs_mount`, for the length of the block.

    Everything in the mount belongs to host id `owner`.  Inputs that are to be seen in a scratch
    path are bound there as well.
    """
    if not layout.inputs:
        yield MountedInputs(layout)
        return
    job = {
        "state": str(state),
        "owner": owner,
        "inputs": [
            {"name": name, "node": wire.encode_node(node)} for name, node in layout.inputs.items()
        ],
    }
    async with servers.worker() as server, _mounted_device(layout) as (device, minor):
        with files.opened(device):
            await server.send_descriptor(device)
            await server.send(job)
        async with _bound(layout, binders):
            yield MountedInputs(layout, server, minor)


@asynccontextmanager
async def _mounted_device(layout: Layout) -> AsyncIterator[tuple[int, int]]:
    """A new FUSE connection, mounted for the length of the block.

    Yields its descriptor and the minor number of the mount, by which the kernel knows it.  Whoever
    enters closes the descriptor once the server has it: the connection is to end with the server.
    """
    target = str(layout.inputs_mount)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = (
        f"fd={device},rootmode=40000,user_id=0,group_id=0"
        f",default_permissions,allow_other,max_read={_MAX_READ}"
    )
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    try:
        kernel.mount("cupola", target, "fuse.cupola", flags, options)
    except OSError as error:
        os.close(device)
        raise infrastructure(
            f"cannot mount the inputs: {error.strerror}", retryable=True
        ) from error
    try:
        _, minor = mounts.device_of(target)
    except OSError:
        os.close(device)
        kernel.unmount(target, kernel.MNT_DETACH)
        raise
    try:
        yield device, minor
    finally:
        with trio.move_on_after(_UNMOUNT_SECONDS, shield=True):
            await trio.to_thread.run_sync(_abort_and_detach, layout, minor, abandon_on_cancel=True)


@asynccontextmanager
async def _bound(layout: Layout, binders: WorkerPool) -> AsyncIterator[None]:
    """The inputs that belong there in their scratch path, for the length of the block.

    runc could bind them, but not more than some hundreds: it tells its child of them in one
    message of 64 KiB.
    """
    names = layout.bound_inputs
    found = layout.locate(layout.inputs_dir)
    if not names or found is None:
        yield
        return
    scratch, relative = found
    holder = str(scratch.source)
    # A mount of its own, so that one call detaches it with all that is mounted in it.
    kernel.mount(holder, holder, "none", kernel.MS_BIND)
    try:
        await _bind(layout, scratch.source / relative, names, binders)
        yield
    finally:
        with trio.move_on_after(_UNMOUNT_SECONDS, shield=True):
            await trio.to_thread.run_sync(kernel.unmount, holder, kernel.MNT_DETACH)


async def _bind(layout: Layout, target: Path, names: list[str], binders: WorkerPool) -> None:
    job = {"source": str(layout.inputs_mount), "target": str(target), "names": names}
    with trio.move_on_after(_BIND_SECONDS):
        async with binders.worker() as binder:
            await binder.send(job)
            answer = await binder.receive()
        if "fault" in answer:
            events.INPUTS_FAILED.tell(build_id=layout.build_id, reason=answer["fault"])
            raise infrastructure("cannot mount the inputs", retryable=True)
        return
    raise infrastructure("the server of the inputs does not answer", retryable=True)


def _abort_and_detach(layout: Layout, minor: int) -> None:
    """Abort the connection, so that nothing can wait for it any more, and detach the mount."""
    mounts.abort_fuse(layout.stage, minor)
    kernel.unmount(str(layout.inputs_mount), kernel.MNT_DETACH)
