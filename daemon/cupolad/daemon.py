"""The daemon's life, in order: what is taken at the start is given back, last first, at the end."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, closing, nullcontext

import trio

from cupolad import activation, events, ingest, inputs
from cupolad.build import Builder
from cupolad.config import Config
from cupolad.control import Control, note_early_signals
from cupolad.ground import prepared
from cupolad.health import Health
from cupolad.host.uids import UidPool
from cupolad.journal import Journal
from cupolad.notify import Notifier
from cupolad.scheduler import Scheduler
from cupolad.server import Server
from cupolad.service import Service
from cupolad.startup import InUseError, Options
from cupolad.store import Store, StoreLimits
from cupolad.workers.pool import WorkerPool


def run(config: Config, options: Options, journal: Journal | None) -> None:
    """Start, serve until told to stop, and leave nothing behind. Blocks; needs the main thread."""
    trio.run(_live, config, options, journal)


def clean(config: Config, options: Options) -> bool:
    """Remove what killed daemons have left; False, without doing so, if a daemon is there. Blocks."""
    try:
        trio.run(_clean, config, options)
    except InUseError:
        return False
    return True


async def _clean(config: Config, options: Options) -> None:
    async with prepared(config, options) as ground, trio.open_nursery() as nursery:
        nursery.start_soon(ground.unit_starters.keep_ready)
        nursery.cancel_scope.cancel()


async def _live(config: Config, options: Options, journal: Journal | None) -> None:
    async with AsyncExitStack() as life:
        early_signals = note_early_signals()
        notifier = Notifier()
        inherited = activation.take_inherited(os.environ)
        ground = await life.enter_async_context(prepared(config, options))
        fork_server = ground.fork_server

        store = life.enter_context(closing(Store(options.state, _store_limits(config))))
        input_servers = WorkerPool(fork_server, inputs.SERVER, spare=1, reuse=False)
        binders = WorkerPool(fork_server, inputs.BINDER, spare=0, reuse=True)
        setup = ingest.setup(options.state, store.limits)
        ingesters = WorkerPool(fork_server, ingest.ROLE, spare=1, reuse=True, setup=setup)
        uids = UidPool(config.sandbox.uid_base, config.sandbox.uid_count)
        builder = Builder(
            ground.places, ground.runtime, ground.launcher, uids, input_servers, binders, ingesters
        )
        scheduler = Scheduler(config.scheduler.max_builds, config.limits.queued_builds)
        service = Service(config, ground.machine, store, scheduler, builder, journal)
        server = Server(service)
        control = Control(service, options.reload, notifier, early_signals)
        health = Health(service, fork_server, notifier)

        listener = life.enter_context(
            activation.listening(options.socket) if inherited is None else nullcontext(inherited)
        )
        nursery = await life.enter_async_context(trio.open_nursery())
        for pool in (input_servers, binders, ingesters, ground.unit_starters):
            nursery.start_soon(pool.keep_ready)
        nursery.start_soon(server.serve, listener)
        await nursery.start(control.obey_signals)
        nursery.start_soon(control.stop_when_idle)
        nursery.start_soon(health.keep_status)
        nursery.start_soon(health.keep_watchdog)
        notifier.ready()
        socket = listener.getsockname()
        events.READY.tell(max_builds=config.scheduler.max_builds, socket=socket)

        await control.wait_until_stopping()
        notifier.stopping()
        server.stop()
        await control.drain()
        nursery.cancel_scope.cancel()
    events.STOPPED.tell()


def _store_limits(config: Config) -> StoreLimits:
    limits = config.limits
    return StoreLimits(
        depth=limits.directory_depth,
        entries=limits.directory_entries,
        directory_bytes=limits.directory_bytes,
        blob_bytes=limits.blob_bytes,
    )
