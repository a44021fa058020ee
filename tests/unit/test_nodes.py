"""Digests, names and nodes cannot be invalid; their text and JSON forms are one to one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola import notation
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from strategies import nodes

ZERO = Digest(bytes(32))
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_digest_of_nothing() -> None:
    assert Digest.of(b"").hex() == EMPTY
    assert Digest.from_hex(EMPTY) == Digest.of(b"")


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_digest_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Digest(bytes(length))


@pytest.mark.parametrize("text", ["", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), "g" * 64, " " * 64])
def test_hex_of_a_digest_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        Digest.from_hex(text)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"\0", b"x" * 256])
def test_names_that_are_none(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        Name(name)


@pytest.mark.parametrize("name", [b"...", b"-rf", b"\n", b"\xff\xfe", b"x" * 255, b" "])
def test_names_that_are_odd(name: bytes) -> None:
    assert Name(name) == name


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 4096])
def test_targets_that_are_none(target: bytes) -> None:
    with pytest.raises(ValueError, match="target"):
        SymlinkNode(target)


@pytest.mark.parametrize("size", [-1, 2**64])
def test_sizes_have_64_bits(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        FileNode(ZERO, size)
    with pytest.raises(ValueError, match="size"):
        DirectoryNode(ZERO, size)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (DirectoryNode(ZERO, 3), f"d:{'0' * 64}:3"),
        (FileNode(ZERO, 0), f"f:{'0' * 64}:0"),
        (FileNode(ZERO, 2**64 - 1, executable=True), f"x:{'0' * 64}:{2**64 - 1}"),
        (SymlinkNode(b"../a b%\xff\n"), "l:../a%20b%25%FF%0A"),
    ],
)
def test_text_form(node: Node, text: str) -> None:
    assert notation.to_text(node) == text
    assert notation.from_text(text) == node


@given(nodes)
def test_text_form_is_one_word_and_comes_back(node: Node) -> None:
    text = notation.to_text(node)
    assert text.isascii()
    assert not set(text) & set(" \t\n'\"\\$`")
    assert notation.from_text(text) == node


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "d:",
        f"d:{'0' * 64}",
        f"d:{'0' * 64}:",
        f"d:{'0' * 63}:1",
        f"d:{'0' * 64}:-1",
        f"d:{'0' * 64}:01",
        f"d:{'0' * 64}:1 ",
        f"d:{'0' * 64}:{2**64}",
        f"d:{'0' * 64}:{10**30}",
        f"D:{'0' * 64}:1",
        f"e:{'0' * 64}:1",
        f"f:{'0' * 64}:\N{ARABIC-INDIC DIGIT ONE}",
        "l:",
        "l:%00",
    ],
)
def test_text_that_is_no_node(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        notation.from_text(text)


def test_json_form() -> None:
    assert notation.to_json(DirectoryNode(ZERO, 3)) == {
        "type": "directory",
        "digest": "0" * 64,
        "size": 3,
    }
    assert notation.to_json(FileNode(ZERO, 5)) == {
        "type": "file",
        "digest": "0" * 64,
        "size": 5,
        "executable": False,
    }
    assert notation.to_json(SymlinkNode(b"x")) == {"type": "symlink", "target": "x"}


@given(nodes)
def test_json_form_comes_back(node: Node) -> None:
    written = json.loads(json.dumps(notation.to_json(node)))
    assert notation.from_json(written) == node


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"type": "file"},
        {"type": "symlink", "target": "a", "size": 1},
        {"type": "directory", "digest": "0" * 64, "size": "3"},
        {"type": "directory", "digest": "0" * 64, "size": True},
        {"type": "file", "digest": "0" * 64, "size": 3, "executable": 1},
        {"type": "file", "digest": "0" * 63, "size": 3, "executable": True},
    ],
)
def test_json_that_is_no_node(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        notation.from_json(value)


@given(st.binary())
def test_printable_has_no_control_characters(data: bytes) -> None:
    assert notation.printable(data).isprintable()
