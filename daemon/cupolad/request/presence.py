"""The rule that the inputs of a request are in the store, and as large as they say."""

from __future__ import annotations

from collections.abc import Sequence

from cupola.errors import invalid_request
from cupola.messages import BuildRequest
from cupola.nodes import Node
from cupolad.request.model import Inputs


def check_presence(request: BuildRequest, store: Inputs) -> None:
    """All inputs are present."""
    nodes = [(f"inputs[{i}].node", i, node) for i, node in enumerate(request.inputs.values())]
    require(nodes, store)


def require(nodes: Sequence[tuple[str, int | None, Node]], store: Inputs) -> None:
    """Check that the nodes are present, all at once, and one by one only to find the faulty one."""
    try:
        store.require([node for _, _, node in nodes])
    except ValueError:
        for field, index, node in nodes:
            try:
                store.require([node])
            except ValueError as error:
                raise invalid_request(field, str(error), index=index) from None
        raise
