"""Import through the socket and ingest of build outputs: files a second, bytes a second, memory.

Every round has a daemon and a store of its own that has never seen the objects; the figures are
medians.  Before each measurement what is dirty is written, so that nothing pays for what came
before it, and nothing is deleted until all is measured: some file systems are slow for minutes
after many deletions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import Row, make_file, make_tree, peak_mib, resident_mib, settle, timed

import cupola.sync
from cupola import BuildConstraints, BuildRequest, DirectoryNode, Name
from cupolad.testing import PrivateDaemon

ROUNDS = 3
FILES = 40_000
GIB = 1 << 30


@dataclass(frozen=True)
class Round:
    """Seconds, and MiB of memory."""

    plain_file: float
    tree: float
    tree_again: float
    file: float
    file_again: float
    resident: float
    peak: float
    tree_ingest: float
    file_ingest: float


def run() -> list[Row]:
    """Measure; the lines of the table."""
    base = Path(tempfile.mkdtemp(prefix="cupola-bench-"))
    try:
        tree, file = base / "tree", base / "file"
        make_tree(tree, FILES, seed=1)
        make_file(file, GIB, seed=1)
        with contextlib.ExitStack() as stack:
            daemons = [stack.enter_context(PrivateDaemon()) for _ in range(ROUNDS)]
            rounds = [_measure(base, tree, file, daemon) for daemon in daemons]
        return _rows(rounds)
    finally:
        shutil.rmtree(base)


def _measure(base: Path, tree: Path, file: Path, daemon: PrivateDaemon) -> Round:
    settle()
    with cupola.sync.connect(daemon.socket) as client:
        with timed() as first_tree:
            client.import_path(tree)
        with timed() as second_tree:
            client.import_path(tree)
        settle()
        plain = _plain_copy(file, base / f"copy-{daemon.pid}")
        settle()
        with timed() as first_file:
            client.import_path(file)
        with timed() as second_file:
            client.import_path(file)
        resident, peak = resident_mib(daemon.pid), peak_mib(daemon.pid)
        settle()
        tree_ingest = _ingest(client, _tree_script())
        settle()
        file_ingest = _ingest(client, "head -c 1073741824 /dev/urandom > out")
    return Round(
        plain_file=plain,
        tree=first_tree(),
        tree_again=second_tree(),
        file=first_file(),
        file_again=second_file(),
        resident=resident,
        peak=peak,
        tree_ingest=tree_ingest,
        file_ingest=file_ingest,
    )


def _plain_copy(source: Path, target: Path) -> float:
    """Seconds that a copy takes until it is on the disk: what the machine itself can do."""
    with timed() as seconds:
        shutil.copyfile(source, target)
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return seconds()


def _rows(rounds: list[Round]) -> list[Row]:
    def median(field: str) -> float:
        return statistics.median(getattr(each, field) for each in rounds)

    def megabytes(seconds: float) -> str:
        return f"{GIB / 1e6 / seconds:,.0f} MB/s ({seconds:.2f} s)"

    def files(seconds: float) -> str:
        return f"{FILES / seconds:,.0f} files/s ({seconds:.2f} s)"

    def again(first: str, second: str) -> Row:
        times = statistics.median(getattr(each, first) / getattr(each, second) for each in rounds)
        figure = f"{times:.1f} times faster ({median(second):.2f} s)"
        return Row("the same once more", figure, "≥ 5 times faster", times >= 5)

    tree, file = median("tree"), median("file")
    tree_ingest, file_ingest = median("tree_ingest"), median("file_ingest")
    plain, resident = median("plain_file"), median("resident")
    return [
        Row(f"import of {FILES:,} files", files(tree), "≥ 8,000 files/s", FILES / tree >= 8000),
        again("tree", "tree_again"),
        Row("a plain copy of 1 GiB to the same disk, synced", megabytes(plain), "", None),
        Row("import of 1 GiB", megabytes(file), "≥ 400 MB/s", GIB / 1e6 / file >= 400),
        again("file", "file_again"),
        Row(
            f"ingest of {FILES:,} files of a build",
            files(tree_ingest),
            "at least as fast as their import",
            tree_ingest <= tree,
        ),
        Row(
            "ingest of 1 GiB of a build",
            megabytes(file_ingest),
            "at least as fast as its import",
            file_ingest <= file,
        ),
        Row(
            "the daemon's memory after the imports",
            f"{resident:.0f} MiB (at most {median('peak'):.0f} MiB)",
            "≤ 80 MiB",
            resident <= 80,
        ),
    ]


def _tree_script() -> str:
    """A script that makes about as many files of about the same sizes as `make_tree`."""
    return f"""
        mkdir out; head -c 6000 /dev/urandom > /tmp/seed; i=0
        while [ $i -lt {FILES // 10} ]; do
            mkdir out/$i
            for n in 0 1 2 3 4 5 6 7 8 9; do
                {{ echo $i.$n; head -c $((200 + (i * 7 + n * 577) % 5800)) /tmp/seed; }} > out/$i/$n
            done
            i=$((i + 1))
        done
    """


def _ingest(client: cupola.sync.Client, script: str) -> float:
    """Seconds from the end of a build's program to its result."""
    result = client.build(
        BuildRequest(
            command_args=("/bin/sh", "-euc", script),
            outputs=("build/out",),
            constraints=BuildConstraints("x86_64-linux", provide_bin_sh=True),
            environment_vars={"PATH": b"/bin"},
            refscan_needles=tuple(b"needle-%032d" % number for number in range(100)),
        )
    )
    whole = (result.times.finished - result.times.started) / 1000
    return whole - result.usage.wall_us / 1e6


def walk_memory(base: Path, daemon: PrivateDaemon, client: cupola.sync.Client) -> Row:
    """What the FUSE server holds while a build walks 40,000 entries."""
    tree = base / "flat"
    tree.mkdir()
    for number in range(FILES):
        (tree / f"entry-{number:05}").write_bytes(b"")
    node = client.import_path(tree)
    assert isinstance(node, DirectoryNode)
    peaks: list[float] = []

    def look(_: object) -> None:
        peaks.extend(peak_mib(pid) for pid in _fuse_servers(daemon.pid))

    client.build(
        BuildRequest(
            command_args=("/bin/sh", "-euc", "ls -l /inputs/t | wc -l; sleep 0.5; : > out"),
            outputs=("build/out",),
            constraints=BuildConstraints("x86_64-linux", provide_bin_sh=True),
            environment_vars={"PATH": b"/bin"},
            inputs={Name(b"t"): node},
        ),
        on_log=look,
    )
    return Row(
        f"the FUSE server while a build walks {FILES:,} entries of one directory",
        f"{max(peaks):.0f} MiB at most",
        "≤ 60 MiB",
        max(peaks) <= 60,
    )


def _fuse_servers(daemon: int) -> list[int]:
    """Processes below the daemon that have /dev/fuse open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and "cupolad" in _command(entry):
            targets = [str(link.readlink()) for link in (entry / "fd").iterdir()]
            if "/dev/fuse" in targets and int(entry.name) != daemon:
                found.append(int(entry.name))
    return found


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def run_walk() -> list[Row]:
    """Measure the FUSE server's memory."""
    base = Path(tempfile.mkdtemp(prefix="cupola-bench-"))
    try:
        with PrivateDaemon() as daemon, cupola.sync.connect(daemon.socket) as client:
            return [walk_memory(base, daemon, client)]
    finally:
        shutil.rmtree(base)
