"""Import through the socket and ingest of build outputs: files a second, bytes a second, memory.

Each figure is taken on objects that the store has never seen; before each, what is dirty is
written, so that nothing pays for what came before it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from harness import Row, make_file, make_tree, peak_mib, resident_mib, settle, timed

import cupola.sync
from cupola import BuildConstraints, BuildRequest, DirectoryNode, Name
from cupolad.testing import PrivateDaemon

FILES = 40_000
GIB = 1 << 30


def run() -> list[Row]:
    """Measure; the lines of the table."""
    base = Path(tempfile.mkdtemp(prefix="cupola-bench-"))
    try:
        with PrivateDaemon() as daemon, cupola.sync.connect(daemon.socket) as client:
            return _measure(base, daemon, client)
    finally:
        shutil.rmtree(base)


def _measure(base: Path, daemon: PrivateDaemon, client: cupola.sync.Client) -> list[Row]:
    tree, file = base / "tree", base / "file"
    make_tree(tree, FILES, seed=1)
    make_file(file, GIB, seed=1)
    # The first gigabyte that this file system has ever held at a place can be slower than the next.
    _warm_up(base, client)

    settle()
    with timed() as first_tree:
        client.import_path(tree)
    with timed() as second_tree:
        client.import_path(tree)
    settle()
    with timed() as first_file:
        client.import_path(file)
    with timed() as second_file:
        client.import_path(file)
    memory = resident_mib(daemon.pid)

    settle()
    tree_seconds = _ingest(client, _tree_script())
    settle()
    file_seconds = _ingest(client, "head -c 1073741824 /dev/urandom > out")
    return [
        Row(
            f"import of {FILES:,} files",
            f"{FILES / first_tree():,.0f} files/s ({first_tree():.2f} s)",
            "≥ 8,000 files/s",
            FILES / first_tree() >= 8000,
        ),
        Row(
            "the same once more",
            f"{first_tree() / second_tree():.1f} times faster ({second_tree():.2f} s)",
            "≥ 5 times faster",
            first_tree() / second_tree() >= 5,
        ),
        Row(
            "import of 1 GiB",
            f"{GIB / 1e6 / first_file():,.0f} MB/s ({first_file():.2f} s)",
            "≥ 400 MB/s",
            GIB / 1e6 / first_file() >= 400,
        ),
        Row(
            "the same once more",
            f"{first_file() / second_file():.1f} times faster ({second_file():.2f} s)",
            "≥ 5 times faster",
            first_file() / second_file() >= 5,
        ),
        Row(
            f"ingest of {FILES:,} files of a build",
            f"{FILES / tree_seconds:,.0f} files/s ({tree_seconds:.2f} s)",
            "at least as fast as their import",
            tree_seconds <= first_tree(),
        ),
        Row(
            "ingest of 1 GiB of a build",
            f"{GIB / 1e6 / file_seconds:,.0f} MB/s ({file_seconds:.2f} s)",
            "at least as fast as its import",
            file_seconds <= first_file(),
        ),
        Row(
            "the daemon's memory after the imports",
            f"{memory:.0f} MiB (at most {peak_mib(daemon.pid):.0f} MiB)",
            "≤ 80 MiB",
            memory <= 80,
        ),
    ]


def _warm_up(base: Path, client: cupola.sync.Client) -> None:
    other = base / "other"
    make_file(other, GIB, seed=2)
    client.import_path(other)
    other.unlink()


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
