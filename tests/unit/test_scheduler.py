"""Permits: at most so many at once, none ever lost, and refusals that say why."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from cupola.errors import BuildError, CupolaError
from cupolad.scheduler import Job, Scheduler


async def _build(scheduler: Scheduler, seconds: float, uid: int = 1) -> None:
    with scheduler.admitted(uid, ("build/out",)) as job:
        await scheduler.run(job, partial(trio.sleep, seconds))


async def test_at_most_so_many_at_once(autojump_clock: MockClock) -> None:
    del autojump_clock
    scheduler = Scheduler(2, 100)
    most = 0

    async def work() -> None:
        nonlocal most
        most = max(most, scheduler.count()[0])
        await trio.sleep(1)

    async def build() -> None:
        with scheduler.admitted(1, ()) as job:
            await scheduler.run(job, work)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(build)
        await wait_all_tasks_blocked()
        assert scheduler.count() == (2, 8)
    assert most == 2
    assert trio.current_time() - start == 5
    assert scheduler.count() == (0, 0)


async def test_a_user_may_have_so_many(autojump_clock: MockClock) -> None:
    del autojump_clock
    scheduler = Scheduler(1, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_build, scheduler, 1)
        nursery.start_soon(_build, scheduler, 1)
        await wait_all_tasks_blocked()
        with pytest.raises(CupolaError) as caught, scheduler.admitted(1, ()):
            pytest.fail("admitted")
        assert caught.value.code == "quota_exceeded"
        nursery.start_soon(_build, scheduler, 1, 2)
    with scheduler.admitted(1, ()):
        assert scheduler.count() == (0, 1)


async def test_a_cancelled_job_raises_its_verdict() -> None:
    scheduler = Scheduler(1, 9)
    verdict = BuildError("cancelled", "by somebody")
    with scheduler.admitted(1, ()) as job:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with pytest.raises(BuildError, match="by somebody"):
                    await scheduler.run(job, trio.sleep_forever)

            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            job.cancel(verdict)
        assert job.left_queue.is_set()


async def test_drain_refuses_the_waiting_and_lets_the_running_end(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    scheduler = Scheduler(1, 9)
    errors: list[CupolaError] = []

    async def build(seconds: float) -> None:
        try:
            await _build(scheduler, seconds)
        except CupolaError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, 5)
        await wait_all_tasks_blocked()
        nursery.start_soon(build, 5)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await scheduler.drain(60)
        assert trio.current_time() - start == 5
    assert [error.details["retryable"] for error in errors] == [True]
    with pytest.raises(CupolaError, match="shutting down"), scheduler.admitted(1, ()):
        pytest.fail("admitted")


async def test_drain_ends_what_takes_too_long(autojump_clock: MockClock) -> None:
    del autojump_clock
    scheduler = Scheduler(1, 9)
    async with trio.open_nursery() as nursery:

        async def build() -> None:
            with pytest.raises(CupolaError, match="shutting down"):
                await _build(scheduler, 1000)

        nursery.start_soon(build)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await scheduler.drain(60)
        assert trio.current_time() - start == 60


async def test_more_permits_at_once(autojump_clock: MockClock) -> None:
    del autojump_clock
    scheduler = Scheduler(1, 9)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_build, scheduler, 1)
        await wait_all_tasks_blocked()
        assert scheduler.count() == (1, 2)
        scheduler.configure(3, 9)
        await wait_all_tasks_blocked()
        assert scheduler.count() == (3, 0)
        assert scheduler.max_builds == 3


def test_ids_are_what_runc_and_systemd_take() -> None:
    ids = {Job(1, ()).build_id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 32 and set(i) <= set("0123456789abcdef") for i in ids)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["end", "fail", "hang_up", "cancel"]), st.integers(0, 5)),
        max_size=12,
    )
)
def test_no_permit_is_ever_lost(fates: list[tuple[str, int]]) -> None:
    """Whatever becomes of the builds, and whenever: in the end all permits are free."""

    async def main() -> None:
        scheduler = Scheduler(2, 100)

        async def build(fate: str, when: int) -> None:
            with trio.CancelScope() as hang_up, scheduler.admitted(1, ()) as job:

                async def work() -> None:
                    await trio.sleep(when)
                    if fate == "fail":
                        raise BuildError("build_failed", "no")

                if fate == "hang_up":
                    hang_up.deadline = trio.current_time() + when
                async with trio.open_nursery() as nursery:
                    if fate == "cancel":

                        async def cancel() -> None:
                            await trio.sleep(when)
                            job.cancel(BuildError("cancelled", "x"))

                        nursery.start_soon(cancel)
                    with contextlib.suppress(BuildError):
                        await scheduler.run(job, work)

        async with trio.open_nursery() as nursery:
            for fate, when in fates:
                nursery.start_soon(build, fate, when)
        assert scheduler.count() == (0, 0)
        assert scheduler._permits.borrowed_tokens == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))
