"""Frames: deterministic CBOR in, everything else refused, at no great cost."""

from __future__ import annotations

import struct
import time
from typing import Any

import cbor2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from cupola import framing
from cupola.framing import FrameError, FrameReader

values = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 2**64 - 1), st.text(), st.binary(), st.none()),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    frame = framing.encode_frame(value)
    assert struct.unpack(">I", frame[:4]) == (len(frame) - 4,)
    assert framing.decode_item(frame[4:]) == value


@given(st.binary(max_size=100))
def test_what_is_accepted_encodes_to_the_same_bytes(body: bytes) -> None:
    try:
        item = framing.decode_item(body)
    except FrameError:
        return
    assert cbor2.dumps(item, canonical=True) == body


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("nothing", ""),
        ("trailing bytes", "0000"),
        ("two items", "a0a0"),
        ("indefinite array", "9f01ff"),
        ("indefinite map", "bfff"),
        ("indefinite bytes", "5f4101ff"),
        ("indefinite text", "7f6161ff"),
        ("indefinite text as a key", "a17f6161ff01"),
        ("duplicate keys", "a2616101616102"),
        ("keys out of order", "a2616201616102"),
        ("integer key", "a10102"),
        ("array key", "a1810102"),
        ("long integer", "1801"),
        ("longer integer", "1b0000000000000001"),
        ("long length", "580161"),
        ("invalid UTF-8", "62c328"),
        ("overlong UTF-8", "62c080"),
        ("surrogate", "63eda080"),
        ("break alone", "ff"),
        ("reserved", "1c"),
        ("truncated", "62"),
        ("truncated map", "a16161"),
        ("simple value in two bytes", "f818"),
    ],
)
def test_refused(what: str, body: str) -> None:
    with pytest.raises(FrameError):
        framing.decode_item(bytes.fromhex(body))


@pytest.mark.parametrize("tag", [*range(301), 1004, 43000, 55799, 2**32, 2**64 - 1])
def test_every_tag_is_refused_everywhere(tag: int) -> None:
    """As the item, as a value and as a key; around values that the tag may expect."""
    head = cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] if tag not in (2, 3) else bytes([0xC0 | tag])
    for inner in (b"\x00", b"\x40", b"\x60", b"\x80", b"\x82\x01\x02"):
        tagged = head + inner
        for body in (
            tagged,
            b"\xa1\x61\x61" + tagged,
            b"\xa1" + tagged + b"\x01",
            b"\x81" + tagged,
        ):
            with pytest.raises(FrameError):
                framing.decode_item(body)


@pytest.mark.parametrize(
    "head", ["81", "a16161", "9f", "bf6161", "c1", "d81c", "8181c1", "a1616181"]
)
def test_deep_nesting_is_refused_at_once(head: str) -> None:
    body = bytes.fromhex(head) * 100_000 + b"\x00"
    start = time.process_time()
    with pytest.raises(FrameError):
        framing.decode_item(body)
    assert time.process_time() - start < 0.05


def test_sixteen_levels_are_accepted() -> None:
    assert framing.decode_item(b"\x81" * 16 + b"\x00")
    with pytest.raises(FrameError):
        framing.decode_item(b"\x81" * 17 + b"\x00")


def _colliding_keys(count: int) -> bytes:
    """A map whose keys are arrays that all have one hash in CPython: hash(-1) == hash(-2)."""
    keys = []
    for number in range(count):
        bits = [(number >> bit) & 1 for bit in range(16)]
        keys.append(b"\x90" + bytes(0x20 + bit for bit in bits))
    return b"\xb9" + struct.pack(">H", count) + b"".join(key + b"\x00" for key in keys)


def test_colliding_keys_cost_nothing() -> None:
    body = _colliding_keys(2**15)
    start = time.process_time()
    with pytest.raises(FrameError):
        framing.decode_item(body)
    assert time.process_time() - start < 0.05


# --- reading -------------------------------------------------------------------------------------


class Source:
    """A memory stream that is read like a socket."""

    def __init__(self, stream: trio.StapledStream) -> None:
        self._stream = stream

    async def recv_into(self, buffer: memoryview, /) -> int:
        data = await self._stream.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)


async def _read_all(data: bytes, **options: Any) -> list[bytes]:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(data)
    await theirs.aclose()
    reader = FrameReader(Source(ours), **options)
    bodies = []
    while (body := await reader.read()) is not None:
        bodies.append(bytes(body))
    return bodies


async def test_frames_come_one_by_one() -> None:
    data = b"".join(framing.encode_frame(item) for item in ({}, [1], "x" * 1000))
    assert [framing.decode_item(body) for body in await _read_all(data)] == [{}, [1], "x" * 1000]


async def test_a_stream_cut_anywhere_is_an_error_or_an_end() -> None:
    frame = framing.encode_frame({"a": 1})
    for cut in range(len(frame) * 2):
        data = (frame * 2)[:cut]
        if cut in (0, len(frame)):
            assert len(await _read_all(data)) == cut // len(frame)
        else:
            with pytest.raises(FrameError, match="ended in the middle"):
                await _read_all(data)


@pytest.mark.parametrize("length", [0, 101, 2**31, 2**32 - 1])
async def test_a_length_out_of_range_is_refused_on_the_header(length: int) -> None:
    with pytest.raises(FrameError, match="1 to 100 bytes"):
        await _read_all(struct.pack(">I", length) + b"abcde", max_frame=100)


async def test_a_frame_has_to_come_in_time(autojump_clock: MockClock) -> None:
    """However the bytes drip, the deadline is that of the whole frame; idling is free."""
    del autojump_clock
    start = trio.current_time()
    ours, theirs = memory_stream_pair()
    reader = FrameReader(Source(ours), seconds=30)
    frame = framing.encode_frame("x" * 100)

    async def drip() -> None:
        await trio.sleep(1000)
        for byte in frame:
            await theirs.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(FrameError, match="after 30 s"):
            await reader.read()
        assert 1030 <= trio.current_time() - start < 1031
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 1000, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_frames_of_every_size(size: int) -> None:
    body = framing.encode_frame(bytes(size))
    assert await _read_all(body * 2) == [body[4:]] * 2


async def test_memory_grows_with_what_has_come() -> None:
    ours, theirs = memory_stream_pair()
    reader = FrameReader(Source(ours))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read_ahead)
        await theirs.send_all(struct.pack(">I", 8 << 20) + b"x" * 300_000)
        await wait_all_tasks_blocked()
        assert len(reader._body) <= 600_000
        nursery.cancel_scope.cancel()


async def test_a_cancelled_read_loses_nothing() -> None:
    ours, theirs = memory_stream_pair()
    reader = FrameReader(Source(ours))
    frame = framing.encode_frame("x" * 300)
    for cut in range(1, len(frame)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read if cut % 2 else reader.read_ahead)
            await theirs.send_all(frame[:cut])
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await theirs.send_all(frame[cut:])
        assert await reader.read() == frame[4:]


@pytest.mark.parametrize(
    "body",
    [b"\x80" * 8_000_000, b"\x9a\x00\x7a\x12\x00" + b"\x40" * 8_000_000, b"\xa0" * 500_000],
    ids=["empty arrays", "an array of empty strings", "empty maps"],
)
def test_a_frame_of_very_many_items_is_refused_before_it_is_decoded(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises(FrameError, match="more than 400000 items"):
        framing.decode_item(body)
    assert time.process_time() - start < 0.5


def test_large_strings_do_not_count() -> None:
    item = {"blobs": [{"digest": bytes(32), "data": b"x" * 3000} for _ in range(2000)]}
    assert framing.decode_item(framing.encode_frame(item)[4:]) == item


def test_as_many_items_as_a_large_request_has_are_accepted() -> None:
    node = {"type": "file", "digest": bytes(32), "size": 1 << 40, "executable": False}
    item = {"inputs": [{"name": b"%032d" % n, "node": node} for n in range(20_000)]}
    assert framing.decode_item(framing.encode_frame(item)[4:]) == item
