"""Directories of the store and their one canonical encoding.

The encoding is the protobuf message `snix.castore.v1.Directory` (field numbers from snix's
castore.proto): each list sorted by name, names unique over all three, default values left out,
fields in the order of their numbers.  `Directory.decode` refuses every other byte string, so a
directory has exactly one encoding and therefore one digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from cupola.nodes import MAX_SIZE, Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode


def _message_class() -> Any:
    """Build the message class of `Directory` from its schema, without generated code."""
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    package = "snix.castore.v1"
    name, digest = ("name", field.TYPE_BYTES), ("digest", field.TYPE_BYTES)
    size, executable = ("size", field.TYPE_UINT64), ("executable", field.TYPE_BOOL)
    target = ("target", field.TYPE_BYTES)
    schema = descriptor_pb2.FileDescriptorProto(
        name="cupola/castore.proto", package=package, syntax="proto3"
    )
    for entry, fields in {
        "DirectoryEntry": (name, digest, size),
        "FileEntry": (name, digest, size, executable),
        "SymlinkEntry": (name, target),
    }.items():
        message = schema.message_type.add(name=entry)
        for number, (label, kind) in enumerate(fields, 1):
            message.field.add(name=label, number=number, type=kind, label=one)
    directory = schema.message_type.add(name="Directory")
    for number, (label, entry) in enumerate(
        (("directories", "DirectoryEntry"), ("files", "FileEntry"), ("symlinks", "SymlinkEntry")), 1
    ):
        directory.field.add(
            name=label,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".{package}.{entry}",
            label=many,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(schema.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Directory"))


_Message: Final = _message_class()


class Directory:
    """The entries of one directory, by name in the order of the names' bytes.

    `encoding`: the canonical bytes.  `digest`: their BLAKE3.  `size`: the number of entries plus
    the sizes of all subdirectories, that is, the number of names anywhere below.
    """

    __slots__ = ("_entries", "digest", "encoding", "size")

    def __init__(self, entries: Mapping[Name, Node]) -> None:
        self._entries: dict[Name, Node] = {name: entries[name] for name in sorted(entries)}
        self.size = len(self._entries) + sum(
            node.size for node in self._entries.values() if isinstance(node, DirectoryNode)
        )
        if self.size > MAX_SIZE:
            raise ValueError("the size of a directory exceeds 2^64-1")
        self.encoding = _encode(self._entries)
        self.digest = Digest.of(self.encoding)

    @classmethod
    def decode(cls, encoding: bytes) -> Directory:
        """The directory that `encoding` is the canonical encoding of; ValueError for any other."""
        try:
            message = _Message.FromString(encoding)
        except DecodeError:
            raise ValueError("not an encoded directory") from None
        entries: dict[Name, Node] = {}
        for entry in message.directories:
            entries[Name(entry.name)] = DirectoryNode(Digest(entry.digest), entry.size)
        for entry in message.files:
            entries[Name(entry.name)] = FileNode(Digest(entry.digest), entry.size, entry.executable)
        for entry in message.symlinks:
            entries[Name(entry.name)] = SymlinkNode(entry.target)
        if len(entries) != len(message.directories) + len(message.files) + len(message.symlinks):
            raise ValueError("two entries of a directory have one name")
        directory = cls(entries)
        if directory.encoding != encoding:
            raise ValueError("the encoding of a directory is not canonical")
        return directory

    @property
    def node(self) -> DirectoryNode:
        """The node that stands for this directory."""
        return DirectoryNode(self.digest, self.size)

    def get(self, name: bytes) -> Node | None:
        """The node called `name`, if there is one."""
        return self._entries.get(name)  # type: ignore[call-overload, no-any-return]

    def items(self) -> Iterator[tuple[Name, Node]]:
        """Name and node of each entry, in the order of the names' bytes."""
        return iter(self._entries.items())

    def nodes(self) -> Iterator[Node]:
        """The node of each entry, in the order of the names' bytes."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Directory) and self.encoding == other.encoding

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Directory {self.digest.hex()} of {len(self)} entries>"


def _encode(entries: Mapping[Name, Node]) -> bytes:
    """Serialize `entries`, which stand in the order of their names."""
    message = _Message()
    add_directory, add_file = message.directories.add, message.files.add
    add_symlink = message.symlinks.add
    for name, node in entries.items():
        match node:
            case FileNode(digest, size, executable):
                add_file(name=name, digest=digest, size=size, executable=executable)
            case DirectoryNode(digest, size):
                add_directory(name=name, digest=digest, size=size)
            case SymlinkNode(target):
                add_symlink(name=name, target=target)
    encoding: bytes = message.SerializeToString(deterministic=True)
    return encoding
