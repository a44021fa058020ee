"""The reference scan against the obvious oracle: `needle in data`."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cupolad.workers.refscan import Needles, Scanner

few_bytes = st.binary(max_size=60).map(lambda data: bytes(byte % 3 for byte in data))
needles = st.lists(few_bytes.filter(bool), max_size=12)
pieces = st.lists(few_bytes, max_size=6)


def found_in(needles: list[bytes], pieces: list[bytes]) -> list[int]:
    """What the scanner finds in one file that comes in these pieces."""
    scanner = Scanner(Needles(needles))
    with scanner.stream() as feed:
        for piece in pieces:
            feed(memoryview(piece))
    return scanner.found()


@settings(max_examples=400)
@given(needles, pieces)
@example([b"\0", b"\0\0", b"\0\0\0"], [b"\0", b"\0", b"\0"])
@example([b"ab", b"b", b"abc", b"bc"], [b"a", b"bc"])
def test_finds_exactly_what_is_there(needles: list[bytes], pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert found_in(needles, pieces) == [i for i, needle in enumerate(needles) if needle in data]


@pytest.mark.parametrize(
    "needle",
    [
        b"a\0b",
        b"\0",
        b"\n",
        b".",
        b"(a+)",
        b"[",
        b"\\x41",
        b"\xff\xfe",
        b"^$",
        b"x" * 255,
        b"\0" * 255,
    ],
)
def test_a_needle_is_taken_literally(needle: bytes) -> None:
    assert found_in([needle], [b"--" + needle + b"--"]) == [0]
    assert found_in([needle], [b"-", *(bytes([byte]) for byte in needle), b"-"]) == [0]
    assert found_in([needle], [b"AAAAaaaa--"]) == []


def test_equal_needles_are_found_together() -> None:
    assert found_in([b"x", b"same", b"same", b"y"], [b"some same"]) == [1, 2]


def test_files_do_not_run_into_each_other() -> None:
    scanner = Scanner(Needles([b"ab"]))
    for piece in (b"a", b"b"):
        with scanner.stream() as feed:
            feed(memoryview(piece))
    scanner.scan(b"a")
    scanner.scan(b"b")
    assert scanner.found() == []
    scanner.scan(b"xaby")
    assert scanner.found() == [0]
    assert scanner.done


def test_without_needles_there_is_nothing_to_do() -> None:
    scanner = Scanner(Needles([]))
    assert scanner.done
    scanner.scan(b"anything")
    assert scanner.found() == []


def test_across_the_border_of_large_buffers() -> None:
    source = random.Random(1)
    needle = source.randbytes(32)
    for split in range(33):
        first = source.randbytes(65536 - split) + needle[:split]
        assert found_in([needle], [first, needle[split:] + source.randbytes(100)]) == [0]


def test_the_largest_set_of_needles_takes_seconds() -> None:
    """20,000 needles of 52 bytes are the most that the default limits let through."""
    source = random.Random(2)
    needles = [source.randbytes(52) for _ in range(20_000)]
    start = time.process_time()
    assert found_in(needles, [b"".join(needles[5:7])]) == [5, 6]
    assert time.process_time() - start < 20


def test_single_bytes_are_no_trap() -> None:
    needles = [bytes([byte]) for byte in range(256)] * 4
    start = time.process_time()
    assert found_in(needles, [bytes(range(0, 256, 2))]) == [
        i for i, needle in enumerate(needles) if needle[0] % 2 == 0
    ]
    assert time.process_time() - start < 1
