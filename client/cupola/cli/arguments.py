"""Words of the command line as values."""

from __future__ import annotations

import os

from cupola import notation
from cupola.cli.failure import UsageError
from cupola.client import Client
from cupola.nodes import DirectoryNode, Node


def node_of(text: str) -> Node:
    """The node that the user wrote."""
    try:
        return notation.from_text(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


async def node_at(client: Client, node: Node, path: str | None) -> Node:
    """What lies at `path` below `node`; symlinks on the way are not followed."""
    walked = ""
    for component in filter(None, os.fsencode(path or "").split(b"/")):
        found = None
        if isinstance(node, DirectoryNode):
            found = (await client.directory(node)).get(component)
        walked = f"{walked}/{notation.printable(component)}"
        if found is None:
            raise UsageError(f"there is no {walked.lstrip('/')} in {notation.to_text(node)}")
        node = found
    return node
