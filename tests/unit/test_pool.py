"""Helpers kept ready: a policy, tested with helpers that are only pretended."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cupola.errors import HostError, infrastructure
from cupolad.workers.pool import WorkerPool
from cupolad.workers.process import ForkServer, Worker


class PretendedWorker:
    """Does nothing, until it is dismissed."""

    spent = False

    def __init__(self) -> None:
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def dismiss(self) -> None:
        self.alive = False

    async def close(self) -> None:
        self.alive = False
        await trio.lowlevel.checkpoint()


class PretendedServer:
    """Forks, unless it is told to fail."""

    def __init__(self) -> None:
        self.failing = False
        self.forked: list[PretendedWorker] = []

    async def fork(self, _: str) -> Worker:
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise infrastructure("cannot start a helper process", retryable=True)
        self.forked.append(PretendedWorker())
        return cast(Worker, self.forked[-1])


def _pool(server: PretendedServer, **options: Any) -> WorkerPool:
    return WorkerPool(cast(ForkServer, server), "role", **{"spare": 1, "reuse": True, **options})


async def test_a_helper_is_ready_before_it_is_wanted(autojump_clock: MockClock) -> None:
    server = PretendedServer()
    pool = _pool(server, reuse=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_ready)
        await wait_all_tasks_blocked()
        assert len(server.forked) == 1
        async with pool.worker() as worker:
            assert worker is cast(Worker, server.forked[0])
        await wait_all_tasks_blocked()
        assert [each.alive for each in server.forked] == [False, True]
        nursery.cancel_scope.cancel()
    assert not any(each.alive for each in server.forked)


async def test_a_helper_that_is_spent_or_met_an_error_is_not_used_again(
    autojump_clock: MockClock,
) -> None:
    server = PretendedServer()
    pool = _pool(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_ready)
        async with pool.worker():
            pass
        async with pool.worker() as worker:
            worker.spent = True
        with pytest.raises(RuntimeError):
            async with pool.worker():
                raise RuntimeError
        await wait_all_tasks_blocked()
        assert sum(each.alive for each in server.forked) == 1
        nursery.cancel_scope.cancel()


async def test_helpers_that_cannot_be_forked_end_nothing_but_what_needs_them(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = PretendedServer()
    server.failing = True
    pool = _pool(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep_ready)
        await trio.sleep(60)
        with pytest.raises(HostError):
            async with pool.worker():
                pytest.fail("got a helper")
        server.failing = False
        await trio.sleep(60)
        assert len(server.forked) == 1
        nursery.cancel_scope.cancel()
    assert "no helper kept ready" in caplog.text
