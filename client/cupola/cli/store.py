"""`cupola ls`, `cupola cat` and `cupola status`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import cupola
from cupola import notation
from cupola.cli.arguments import node_at, node_of
from cupola.cli.failure import UsageError
from cupola.messages import StatusReport
from cupola.nodes import DirectoryNode, FileNode, SymlinkNode


async def run_ls(options: argparse.Namespace) -> int:
    """List a directory: node and name of each entry."""
    root = node_of(options.node)
    async with cupola.connect(options.socket) as client:
        node = await node_at(client, root, options.path)
        if not isinstance(node, DirectoryNode):
            raise UsageError(f"{notation.to_text(node)} is no directory; try `cupola cat`")
        directory = await client.directory(node)
    if options.json:
        listing = {notation.bytes_to_text(n): notation.to_json(e) for n, e in directory.items()}
        print(json.dumps(listing))
        return 0
    for name, entry in directory.items():
        print(f"{notation.to_text(entry)}\t{notation.printable(name)}")
    return 0


async def run_cat(options: argparse.Namespace) -> int:
    """Print the bytes of a file, or the target of a symlink."""
    root = node_of(options.node)
    async with cupola.connect(options.socket) as client:
        node = await node_at(client, root, options.path)
        if isinstance(node, SymlinkNode):
            sys.stdout.buffer.write(node.target)
        elif isinstance(node, FileNode):
            async with client.open_blob(node) as pieces:
                async for piece in pieces:
                    sys.stdout.buffer.write(piece)
        else:
            raise UsageError(f"{notation.to_text(node)} is a directory; try `cupola ls`")
    sys.stdout.buffer.flush()
    return 0


async def run_status(options: argparse.Namespace) -> int:
    """Show the daemon's status report."""
    async with cupola.connect(options.socket) as client:
        report = await client.status()
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        _show(report)
    return 0


def _show(report: StatusReport) -> None:
    print(f"{report.server}, up {report.uptime_ms // 1000} s{', draining' * report.draining}")
    print(f"builds: {report.running} running of {report.max_builds}, {report.queued} queued")
    print(
        f"store: {report.store_blobs:,} blobs, {report.store_directories:,} directories,"
        f" {notation.readable_size(report.store_bytes)}"
    )
    for build in report.builds:
        outputs = notation.printable(" ".join(build.outputs).encode())
        print(f"{build.state}\t{build.build_id}\tuid {build.uid}\t{outputs}")
