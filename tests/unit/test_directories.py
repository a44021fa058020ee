"""The canonical encoding: the identity on valid directories, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cupola.directories import Directory
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, SymlinkNode
from strategies import directories

ONE, TWO = Digest(b"\1" * 32), Digest(b"\2" * 32)


def test_the_empty_directory() -> None:
    empty = Directory({})
    assert empty.encoding == b""
    assert empty.size == 0
    assert empty.digest.hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert Directory.decode(b"") == empty


def test_size_counts_all_names_below() -> None:
    directory = Directory(
        {
            Name(b"a"): DirectoryNode(ONE, 4),
            Name(b"b"): FileNode(ONE, 1000),
            Name(b"c"): SymlinkNode(b"x"),
        }
    )
    assert directory.size == 3 + 4
    assert directory.node == DirectoryNode(directory.digest, 7)


def test_equal_to_an_encoding_by_hand() -> None:
    directory = Directory(
        {
            Name(b"z"): FileNode(TWO, 300, executable=True),
            Name(b"b"): FileNode(ONE, 0),
            Name(b"a"): DirectoryNode(TWO, 0),
            Name(b"\xff"): SymlinkNode(b"to/\xfe"),
        }
    )
    assert directory.encoding == reference.encode(
        {b"a": (TWO, 0)}, {b"b": (ONE, 0, False), b"z": (TWO, 300, True)}, {b"\xff": b"to/\xfe"}
    )


@given(directories)
def test_decode_is_the_inverse_of_encode(directory: Directory) -> None:
    again = Directory.decode(directory.encoding)
    assert dict(again.items()) == dict(directory.items())
    assert (again.digest, again.size) == (directory.digest, directory.size)
    assert [name for name, _ in again.items()] == sorted(name for name, _ in directory.items())


@given(directories, st.data())
def test_any_other_bytes_are_refused_or_another_directory(
    directory: Directory, data: st.DataObject
) -> None:
    """Flip, insert or drop bytes: what is still accepted re-encodes to exactly those bytes."""
    encoding = bytearray(directory.encoding)
    position = data.draw(st.integers(0, len(encoding)))
    match data.draw(st.sampled_from(["insert", "drop", "change"])):
        case "insert":
            encoding[position:position] = data.draw(st.binary(min_size=1, max_size=3))
        case "drop":
            del encoding[position : position + 1]
        case _:
            encoding[position : position + 1] = data.draw(st.binary(min_size=1, max_size=1))
    try:
        accepted = Directory.decode(bytes(encoding))
    except ValueError:
        return
    assert accepted.encoding == bytes(encoding)


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    try:
        accepted = Directory.decode(data)
    except ValueError:
        return
    assert accepted.encoding == data


def _file(name: bytes, size: int = 1) -> bytes:
    return reference.encode({}, {name: (ONE, size, False)}, {})


@pytest.mark.parametrize(
    ("what", "encoding"),
    [
        ("unsorted", _file(b"b") + _file(b"a")),
        ("twice the same", _file(b"a") + _file(b"a")),
        ("one name in two lists", _file(b"a") + reference.encode({}, {}, {b"a": b"t"})),
        ("lists out of order", _file(b"a") + reference.encode({b"b": (ONE, 1)}, {}, {})),
        ("a default written out", _file(b"a", 0)[:1] + b"\x27" + _file(b"a", 0)[2:] + b"\x18\x00"),
        ("a long varint", b"\x12\xa7\x00" + _file(b"a")[2:]),
        ("an unknown field", b"\x22\x00"),
        ("an unknown field of an entry", b"\x12\x29" + _file(b"a")[2:] + b"\x28\x01"),
        ("a wrong wire type", b"\x08\x01"),
        ("a truncated entry", _file(b"a")[:-1]),
        ("a short digest", reference.encode({}, {b"a": (b"\1" * 31, 1, False)}, {})),
        ("a name with a slash", _file(b"a/b")),
        ("a name that is ..", _file(b"..")),
        ("an empty name", _file(b"")),
        ("an empty target", reference.encode({}, {}, {b"a": b""})),
        ("NUL in a target", reference.encode({}, {}, {b"a": b"x\0y"})),
        ("executable that is 2", _file(b"a")[:1] + b"\x29" + _file(b"a")[2:] + b"\x20\x02"),
    ],
)
def test_refused(what: str, encoding: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Directory.decode(encoding)


def test_sizes_that_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        Directory({Name(b"a"): DirectoryNode(ONE, 2**64 - 1)})


def test_lookup_by_name() -> None:
    directory = Directory({Name(b"a"): SymlinkNode(b"b")})
    assert directory.get(b"a") == SymlinkNode(b"b")
    assert directory.get(b"b") is None
    assert len(directory) == 1
