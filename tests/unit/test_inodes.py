"""Inodes of an input mount, without a mount."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.directories import Directory
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupolad.workers.inodes import ROOT, InodeTable

A, B = Digest(b"\1" * 32), Digest(b"\2" * 32)
INNER = Directory({Name(b"f"): FileNode(A, 1), Name(b"l"): SymlinkNode(b"x")})
OUTER = Directory({Name(b"one"): INNER.node, Name(b"two"): INNER.node, Name(b"f"): FileNode(A, 1)})
ALL = {INNER.digest: INNER, OUTER.digest: OUTER}


def _table(inputs: dict[Name, Node] | None = None) -> InodeTable:
    return InodeTable(inputs if inputs is not None else {Name(b"in"): OUTER.node}, ALL.__getitem__)


def _find(table: InodeTable, *names: bytes) -> int:
    number = ROOT
    for name in names:
        inode = table.look_up(number, name)
        assert inode is not None
        table.remember(inode)
        number = inode.number
    return number


def test_lookup() -> None:
    table = _table()
    assert table.look_up(ROOT, b"absent") is None
    assert table.get(_find(table, b"in")).node == OUTER.node
    assert table.get(_find(table, b"in", b"one", b"l")).node == SymlinkNode(b"x")
    assert table.look_up(_find(table, b"in", b"one"), b"absent") is None


def test_equal_files_are_one_inode_and_directories_are_not() -> None:
    table = _table()
    assert _find(table, b"in", b"f") == _find(table, b"in", b"one", b"f")
    assert _find(table, b"in", b"one") != _find(table, b"in", b"two")


def test_executable_files_are_others() -> None:
    table = _table({Name(b"a"): FileNode(A, 1), Name(b"b"): FileNode(A, 1, executable=True)})
    assert _find(table, b"a") != _find(table, b"b")


def test_numbers_are_the_same_every_time() -> None:
    paths = [(b"in",), (b"in", b"one"), (b"in", b"two", b"f"), (b"in", b"one", b"l")]
    first, second = _table(), _table()
    numbers = [_find(first, *path) for path in paths]
    assert [_find(second, *path) for path in reversed(paths)] == numbers[::-1]
    assert len(set(numbers)) == len(paths)
    assert all(ROOT < number < 2**63 for number in numbers)


def test_what_is_forgotten_takes_no_memory() -> None:
    table = _table()
    number = _find(table, b"in", b"one", b"f")
    _find(table, b"in", b"one", b"f")
    table.forget(number, 1)
    assert table.get(number).node == FileNode(A, 1)
    table.forget(number, 1)
    with pytest.raises(KeyError):
        table.get(number)
    table.forget(number, 5)
    assert _find(table, b"in", b"one", b"f") == number


def test_the_root_is_never_forgotten() -> None:
    table = _table()
    table.forget(ROOT, 10**6)
    assert table.get(ROOT).node is None


def test_nothing_is_read_before_it_is_looked_up() -> None:
    def read(digest: Digest) -> Directory:
        raise AssertionError(digest)

    table = InodeTable({Name(b"in"): OUTER.node}, read)
    _find(table, b"in")
    assert [name for name, _ in table.children(ROOT)] == [b"in"]


def test_listing() -> None:
    table = _table()
    assert list(table.children(_find(table, b"in"))) == list(OUTER.items())
    with pytest.raises(NotADirectoryError):
        table.children(_find(table, b"in", b"f"))
    with pytest.raises(NotADirectoryError):
        table.look_up(_find(table, b"in", b"f"), b"x")


def test_blobs_whose_digests_begin_alike_are_told_apart() -> None:
    """A user can make two blobs whose digests share the 63 bits that the number is made of."""
    twin = Digest(A[:8] + b"\7" * 24)
    table = _table({Name(b"a"): FileNode(A, 1), Name(b"b"): FileNode(twin, 2)})
    a, b = _find(table, b"a"), _find(table, b"b")
    assert a != b
    assert table.get(a).node == FileNode(A, 1)
    assert table.get(b).node == FileNode(twin, 2)
    assert _find(table, b"b") == b


def test_directories_are_read_once_while_they_are_cached() -> None:
    reads: list[Digest] = []

    def read(digest: Digest) -> Directory:
        reads.append(digest)
        return ALL[digest]

    table = InodeTable({Name(b"in"): OUTER.node}, read)
    for _ in range(3):
        _find(table, b"in", b"one", b"f")
    assert reads == [OUTER.digest, INNER.digest]


def test_the_cache_of_directories_is_bounded() -> None:
    large = {
        number: Directory({Name(b"%d-%d" % (number, i)): SymlinkNode(b"x") for i in range(30_000)})
        for number in range(4)
    }
    by_digest = {directory.digest: directory for directory in large.values()}
    table = InodeTable(
        {Name(b"%d" % number): directory.node for number, directory in large.items()},
        by_digest.__getitem__,
    )
    for number in range(4):
        _find(table, b"%d" % number, b"%d-5" % number)
    assert table._cached_entries <= 65_536


@given(st.lists(st.sampled_from([(b"in",), (b"in", b"one"), (b"in", b"f")]), max_size=20))
def test_counts_balance(paths: list[tuple[bytes, ...]]) -> None:
    table = _table()
    told: dict[int, int] = {}
    for path in paths:
        number = ROOT
        for name in path:
            inode = table.look_up(number, name)
            assert inode is not None
            table.remember(inode)
            number = inode.number
            told[number] = told.get(number, 0) + 1
    for number, count in told.items():
        table.forget(number, count)
    assert len(table) == 1


def test_a_directory_node_for_a_missing_directory() -> None:
    table = _table({Name(b"gone"): DirectoryNode(B, 1)})
    number = _find(table, b"gone")
    with pytest.raises(KeyError):
        table.look_up(number, b"x")


def test_a_listing_is_made_once_however_often_it_is_opened() -> None:
    table = InodeTable({Name(b"a"): FileNode(Digest(bytes(32)), 0)}, lambda _: pytest.fail("read"))
    assert table.children(ROOT) is table.children(ROOT)
