"""Hypothesis strategies for values of cupola."""

from __future__ import annotations

from hypothesis import strategies as st

from cupola.directories import Directory
from cupola.nodes import MAX_SIZE, Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode

digests = st.binary(min_size=32, max_size=32).map(Digest)
names = (
    st.binary(min_size=1, max_size=255)
    .filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
    .map(Name)
)
sizes = st.integers(0, MAX_SIZE)
targets = st.binary(min_size=1, max_size=4095).filter(lambda target: b"\0" not in target)
files = st.builds(FileNode, digests, sizes, st.booleans())
directory_nodes = st.builds(DirectoryNode, digests, st.integers(0, 2**40))
symlinks = st.builds(SymlinkNode, targets)
nodes: st.SearchStrategy[Node] = st.one_of(files, directory_nodes, symlinks)
directories = st.dictionaries(names, nodes, max_size=20).map(Directory)
