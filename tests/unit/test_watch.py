"""The limits in time, with a clock that turns by itself and a build that is only pretended."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cupola.errors import CupolaError
from cupolad.host.cgroups import Cgroup, Hierarchies
from cupolad.launch import Ending
from cupolad.launch.streams import Pipe
from cupolad.logs import BuildLog
from cupolad.watch import RunLimits, Watch


class PretendedBuild(Cgroup):
    """Its processes end when they are killed, or when told to."""

    def __init__(self, log: BuildLog) -> None:
        super().__init__(Hierarchies({}), "/x")
        self.log = log
        self.end, self.interruption = trio.Event(), trio.Event()
        self.killed = self.immortal = False
        self.out, self.err = Pipe(os.geteuid()), Pipe(os.geteuid())
        self.stdout, self.stderr = self.out.output, self.err.output

    def kill_container(self) -> None:
        self.killed = True
        if not self.immortal:
            self.end.set()

    async def ended(self) -> Ending:
        """Return when its first process has ended."""
        await self.end.wait()
        return Ending(0, None)

    async def interrupted(self) -> None:
        """Return when an administrator wants it to end."""
        await self.interruption.wait()

    async def watched(
        self,
        program: Callable[[], Awaitable[None]] = trio.sleep_forever,
        doom: Callable[[], Awaitable[None]] = trio.sleep_forever,
        **limits: float,
    ) -> CupolaError | None:
        """The verdict after it has done what `program` does."""
        verdict = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program)
            watch = Watch(self, RunLimits(**limits), self.log)
            try:
                await watch.until_end(self, doom)
            except CupolaError as error:
                verdict = error
            nursery.cancel_scope.cancel()
        return verdict


@pytest.fixture
def clock() -> MockClock:
    """Time passes when nothing else happens, in threads neither."""
    return MockClock(autojump_threshold=0.1)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    """A log that takes 1,000 bytes."""
    with BuildLog(tmp_path, 1000) as log:
        yield log


async def test_a_build_that_ends_in_time(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)

    async def program() -> None:
        os.write(build.out.writer, b"hello")
        await trio.sleep(4)
        build.end.set()

    assert await build.watched(program, wall=10, silence=5) is None
    assert log.read(0, 100) == b"hello"
    assert not build.killed


async def test_a_build_that_runs_too_long(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)
    start = trio.current_time()
    verdict = await build.watched(wall=3600)
    assert verdict is not None
    assert (verdict.code, verdict.details["limit"]) == ("timeout", 3600)
    assert trio.current_time() - start == pytest.approx(3600)
    assert build.killed


async def test_silence_counts_from_the_last_word(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)
    start = trio.current_time()

    async def program() -> None:
        for _ in range(3):
            await trio.sleep(50)
            os.write(build.err.writer, b".")

    verdict = await build.watched(program, silence=60)
    assert verdict is not None
    assert verdict.code == "silence"
    assert trio.current_time() - start == pytest.approx(150 + 60)


async def test_the_first_verdict_counts(log: BuildLog, clock: MockClock) -> None:
    verdict = await PretendedBuild(log).watched(wall=5, silence=5.5)
    assert verdict is not None
    assert verdict.code == "timeout"


async def test_a_log_that_is_too_long(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)

    async def program() -> None:
        os.write(build.out.writer, b"x" * 1001)

    verdict = await build.watched(program, wall=100)
    assert verdict is not None
    assert verdict.code == "log_limit"
    assert build.killed


async def test_the_host_fails(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)

    async def doom() -> None:
        await trio.sleep(1)

    verdict = await build.watched(doom=doom)
    assert verdict is not None
    assert verdict.code == "infrastructure"
    assert build.killed


async def test_an_administrator_ends_it(log: BuildLog, clock: MockClock) -> None:
    build = PretendedBuild(log)

    async def program() -> None:
        build.interruption.set()

    verdict = await build.watched(program)
    assert verdict is not None
    assert verdict.code == "cancelled"
    assert build.killed


async def test_what_was_written_last_is_kept_whoever_holds_the_pipe_open(
    log: BuildLog, clock: MockClock
) -> None:
    build = PretendedBuild(log)

    async def program() -> None:
        os.write(build.out.writer, b"last words")
        build.end.set()

    assert await build.watched(program) is None
    assert log.read(0, 100) == b"last words"


async def test_a_process_that_cannot_be_killed_is_not_waited_for(
    log: BuildLog, clock: MockClock
) -> None:
    build = PretendedBuild(log)
    build.immortal = True
    start = trio.current_time()
    verdict = await build.watched(wall=10)
    assert verdict is not None
    assert verdict.code == "timeout"
    assert trio.current_time() - start < 15
