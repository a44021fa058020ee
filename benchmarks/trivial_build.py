"""What the daemon adds to a trivial build: its builds and bare `runc run` of the same bundle, in turn.

The bundle is made by the daemon's own modules, once, in a private mount namespace; the build is
busybox `true` with one output, an empty file.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import trio
from harness import Row, median_ms, timed

import cupola.sync
from cupola import BuildConstraints, BuildRequest, Name
from cupola.messages import BuildRequest as Request
from cupolad import bundle
from cupolad.config import Config
from cupolad.host import mounts
from cupolad.host.cgroups import CgroupLimits
from cupolad.host.uids import UidRange
from cupolad.layout import Layout
from cupolad.paths import SandboxPath
from cupolad.runc import ENVIRONMENT
from cupolad.spec import SandboxSettings, make_spec
from cupolad.testing import PrivateDaemon

ROUNDS = 60
_GROUP = "/cupola-benchmark"


def request(**fields: object) -> Request:
    """A build that does next to nothing."""
    return BuildRequest(
        command_args=("/bin/sh", "-c", ": > out"),
        outputs=("build/out",),
        constraints=BuildConstraints("x86_64-linux", provide_bin_sh=True),
        environment_vars={"PATH": b"/bin"},
        **fields,  # type: ignore[arg-type]
    )


def run() -> list[Row]:
    """Measure; the lines of the table."""
    mounts.enter_private_namespace()
    base = Path(tempfile.mkdtemp(prefix="cupola-bench-"))
    try:
        with PrivateDaemon() as daemon:
            return trio.run(_compare, base, daemon)
    finally:
        shutil.rmtree(base)
        for directory in Path("/sys/fs/cgroup").glob(f"**{_GROUP}/"):
            directory.rmdir()


async def _compare(base: Path, daemon: PrivateDaemon) -> list[Row]:
    (base / "bundles").mkdir()
    stage = mounts.make_stage([base])
    ids = UidRange(Config().sandbox.uid_base + 100 * 65536)
    layout = Layout.plan(
        "0" * 32, base / "bundles", stage, SandboxPath("inputs"), {}, (SandboxPath("build"),)
    )
    settings = SandboxSettings(
        "/bin/busybox", "x86_64", 1 << 30, 1 << 30, 1024, CgroupLimits(1 << 34, 4096, None)
    )
    async with bundle.created(layout, request(), ids):
        spec = make_spec(request(), layout, ids, settings, f"{_GROUP}/container")
        await bundle.write_config(layout, spec)
        return await trio.to_thread.run_sync(_measure, base, layout, daemon)


def _measure(base: Path, layout: Layout, daemon: PrivateDaemon) -> list[Row]:
    bare: list[float] = []
    without: list[float] = []
    with_input: list[float] = []
    with cupola.sync.connect(daemon.socket) as client:
        tree = base / "tree"
        tree.mkdir()
        (tree / "file").write_text("hello")
        inputs = {Name(b"tree"): client.import_path(tree)}
        for _ in range(ROUNDS):
            bare.append(_runc(base, layout))
            with timed() as seconds:
                client.build(request())
            without.append(seconds())
            with timed() as seconds:
                client.build(request(inputs=inputs))
            with_input.append(seconds())
    share = statistics.median(a - b for a, b in zip(without, bare, strict=True)) * 1000
    share_input = statistics.median(a - b for a, b in zip(with_input, bare, strict=True)) * 1000
    return [
        Row("bare `runc run` of the same bundle, median", f"{median_ms(bare):.1f} ms", "", None),
        Row("trivial build, median", f"{median_ms(without):.1f} ms", "", None),
        Row("the daemon's share of it, median", f"{share:.1f} ms", "≤ 15 ms", share <= 15),
        Row("the same with an input mounted by FUSE", f"{share_input:.1f} ms", "", None),
    ]


def _runc(base: Path, layout: Layout) -> float:
    command = ["runc", "--root", str(base / "runc"), "run", "--bundle", str(layout.bundle), "bench"]
    with timed() as seconds:
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return seconds()


if __name__ == "__main__":
    from harness import table

    print(table(run()))
