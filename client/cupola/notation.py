"""How people and programs write nodes: the one-word text form and the JSON form.

Text form, for shells: `d:<64 hex>:<size>`, `f:<64 hex>:<size>`, `x:<64 hex>:<size>` (executable),
`l:<target, percent-encoded>`.  JSON has no bytes: a byte that is not UTF-8 is written as a lone
low surrogate (Python's `surrogateescape`), so that every name and target survives the round trip.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from cupola.nodes import Digest, DirectoryNode, FileNode, Node, SymlinkNode

_SIZE = re.compile("0|[1-9][0-9]{0,19}", re.ASCII)


def to_text(node: Node) -> str:
    """The text form of `node`."""
    match node:
        case DirectoryNode(digest, size):
            return f"d:{digest.hex()}:{size}"
        case FileNode(digest, size, executable):
            return f"{'x' if executable else 'f'}:{digest.hex()}:{size}"
        case SymlinkNode(target):
            return f"l:{quote_from_bytes(target)}"


def from_text(text: str) -> Node:
    """The node that `text` is the text form of; ValueError for anything else."""
    kind, _, rest = text.partition(":")
    if kind == "l":
        return SymlinkNode(unquote_to_bytes(rest))
    digits, _, size_text = rest.partition(":")
    if kind not in {"d", "f", "x"} or _SIZE.fullmatch(size_text) is None:
        raise ValueError(f"{text!r} is not a node; write d:<digest>:<size>, f:…, x:… or l:<target>")
    digest, size = Digest.from_hex(digits), int(size_text)
    if kind == "d":
        return DirectoryNode(digest, size)
    return FileNode(digest, size, executable=kind == "x")


def to_json(node: Node) -> dict[str, Any]:
    """The JSON form of `node`."""
    match node:
        case DirectoryNode(digest, size):
            return {"type": "directory", "digest": digest.hex(), "size": size}
        case FileNode(digest, size, executable):
            return {
                "type": "file",
                "digest": digest.hex(),
                "size": size,
                "executable": executable,
            }
        case SymlinkNode(target):
            return {"type": "symlink", "target": bytes_to_text(target)}


def from_json(value: Any) -> Node:
    """The node that `value` is the JSON form of; ValueError for anything else."""
    match value:
        case {"type": "directory", "digest": str(digest), "size": int(size), **rest} if not rest:
            node: Node = DirectoryNode(Digest.from_hex(digest), size)
        case {
            "type": "file",
            "digest": str(digest),
            "size": int(size),
            "executable": bool(executable),
            **rest,
        } if not rest:
            node = FileNode(Digest.from_hex(digest), size, executable)
        case {"type": "symlink", "target": str(target), **rest} if not rest:
            return SymlinkNode(text_to_bytes(target))
        case _:
            raise ValueError("not a node in its JSON form")
    if isinstance(size, bool):
        raise ValueError("a size is a number")
    return node


def text_to_bytes(text: str) -> bytes:
    """The inverse of `bytes_to_text`."""
    return text.encode("utf-8", "surrogateescape")


def bytes_to_text(value: bytes) -> str:
    """`value` as text for JSON; see the module's docstring for bytes that are not UTF-8."""
    return value.decode("utf-8", "surrogateescape")


def printable(value: bytes) -> str:
    """`value` for a message or a terminal: control and non-UTF-8 bytes are escaped."""
    text = value.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def readable_size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
