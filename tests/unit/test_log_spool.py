"""The log spool: all of it for every reader, at the reader's pace, from its start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from cupola.errors import BuildError
from cupola.messages import Log
from cupolad.logs import BuildLog, Stream

writes = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=100_000)),
    max_size=8,
)


async def _everything(log: BuildLog) -> list[Log]:
    return [message async for message in log.follow()]


def _joined(messages: list[Log]) -> list[tuple[str, bytes]]:
    """Neighbours of one stream put together."""
    joined: list[tuple[str, bytes]] = []
    for message in messages:
        if joined and joined[-1][0] == message.stream:
            joined[-1] = (message.stream, joined[-1][1] + message.data)
        else:
            joined.append((message.stream, message.data))
    return joined


@given(writes)
def test_readers_get_what_was_written(writes: list[tuple[Stream, bytes]]) -> None:
    async def main() -> None:
        with BuildLog(Path("/tmp"), 1 << 30) as log:
            async with trio.open_nursery() as nursery:
                early: list[Log] = []

                async def read() -> None:
                    early.extend(await _everything(log))

                nursery.start_soon(read)
                for stream, data in writes:
                    await log.append(stream, data)
                log.end()
            late = await _everything(log)
            expected = _joined([Log(stream, data) for stream, data in writes])
            assert _joined(early) == expected
            assert _joined(late) == expected
            assert all(len(message.data) <= 100_000 for message in early + late)
            whole = b"".join(data for _, data in writes)
            assert log.size == len(whole)
            if whole:
                assert log.read(0, log.size) == whole

    trio.run(main)


async def test_a_reader_that_stands_still_holds_up_nobody(tmp_path: Path) -> None:
    with BuildLog(tmp_path, 1 << 30) as log:
        reader = log.follow()
        await log.append("stdout", b"first")
        assert (await anext(reader)).data == b"first"
        with trio.fail_after(20):
            for _ in range(1000):
                await log.append("stdout", b"x" * 10_000)
        log.end()
        assert sum([len(message.data) async for message in reader]) == 10_000_000


async def test_the_limit(tmp_path: Path) -> None:
    with BuildLog(tmp_path, 10) as log:
        await log.append("stdout", b"123456")
        with pytest.raises(BuildError) as caught:
            await log.append("stderr", b"789012")
        assert (caught.value.code, caught.value.details) == ("log_limit", {"limit": 10})
        log.end()
        assert _joined(await _everything(log)) == [("stdout", b"123456"), ("stderr", b"7890")]


async def test_tail(tmp_path: Path) -> None:
    with BuildLog(tmp_path, 1000) as log:
        assert log.tail(5, 100) == []
        await log.append("stdout", b"one\ntwo\nthree\nfour")
        assert log.tail(2, 100) == [b"three", b"four"]
        assert log.tail(9, 8) == [b"ree", b"four"]


async def test_readers_wait_for_more(tmp_path: Path) -> None:
    with BuildLog(tmp_path, 1000) as log:
        got: list[bytes] = []

        async def read() -> None:
            async for message in log.follow():
                got.append(message.data)  # noqa: PERF401

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert got == []
            await log.append("stdout", b"a")
            await wait_all_tasks_blocked(0.05)
            assert got == [b"a"]
            log.end()


async def test_nothing_is_left_and_nothing_is_seen(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with BuildLog(tmp_path, 1000) as log:
        await log.append("stdout", b"a")
        assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_log_without_a_word_costs_no_file(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with BuildLog(tmp_path / "absent", 1000) as log:
        log.end()
        assert await _everything(log) == []
        assert set(os.listdir("/proc/self/fd")) == before
