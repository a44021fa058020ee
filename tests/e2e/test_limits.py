"""Each limit ends the build that breaks it, with its own error, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cupola.sync
from conftest import shell
from cupola import BuildError, FileNode, Log, Name
from cupolad.testing import PrivateDaemon
from waiting import eventually

CONFIG = """
[scheduler]
max_builds = 2
[limits]
memory = 67108864
processes = 50
wall_seconds = 2
silence_seconds = 1
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateDaemon]:
    """A daemon with tight limits."""
    with PrivateDaemon(CONFIG) as daemon:
        yield daemon


def fails(client: cupola.sync.Client, script: str, probe: FileNode) -> BuildError:
    """The error of a script's build."""
    with pytest.raises(BuildError) as caught:
        client.build(shell(script, inputs={Name(b"probe"): probe}))
    return caught.value


def test_wall_time(client: cupola.sync.Client, probe: FileNode) -> None:
    error = fails(client, "while :; do echo x; sleep 0.1; done", probe)
    assert (error.code, error.details["limit"]) == ("timeout", 2)


def test_silence(client: cupola.sync.Client, probe: FileNode) -> None:
    error = fails(client, "echo once; sleep 100", probe)
    assert (error.code, error.details["limit"]) == ("silence", 1)


def test_what_cannot_be_told_to_stop(client: cupola.sync.Client, probe: FileNode) -> None:
    assert fails(client, "/inputs/probe stop", probe).code == "silence"


@pytest.mark.parametrize(
    "script",
    [
        "/inputs/probe fill 100",
        "/inputs/probe fill 100 || : > out",
        "head -c 100000000 /dev/zero > /tmp/x",
        "head -c 100000000 /dev/zero > /dev/shm/x",
        "(/inputs/probe fill 100; :) & wait; : > out",
    ],
)
def test_memory_also_in_tmpfs_also_of_a_child(
    client: cupola.sync.Client, probe: FileNode, script: str
) -> None:
    error = fails(client, script, probe)
    assert (error.code, error.details["limit"]) == ("out_of_memory", 64 << 20)


def test_memory_that_is_enough(client: cupola.sync.Client, probe: FileNode) -> None:
    request = shell("/inputs/probe fill 40; : > out", inputs={Name(b"probe"): probe})
    assert 40 << 20 < client.build(request).usage.memory_peak < 64 << 20


def test_a_fork_bomb(client: cupola.sync.Client, probe: FileNode) -> None:
    """It is held at its limit, others build meanwhile, and all of it is gone at the end."""
    import threading

    done = threading.Event()

    def bomb() -> None:
        assert fails(client, "/inputs/probe forks", probe).code in ("silence", "timeout")
        done.set()

    thread = threading.Thread(target=bomb)
    thread.start()
    assert eventually(lambda: client.status().running == 1)
    client.build(shell("echo x; : > out"))
    thread.join(20)
    assert done.is_set()


def test_more_memory_than_there_is_for_a_build(client: cupola.sync.Client) -> None:
    constraints = cupola.BuildConstraints(
        "x86_64-linux", min_memory=(64 << 20) + 1, provide_bin_sh=True
    )
    with pytest.raises(cupola.RequestError) as caught:
        client.build(shell(": > out", constraints=constraints))
    assert caught.value.details["field"] == "constraints.min_memory"


def test_a_writer_left_behind_does_not_change_outputs(
    client: cupola.sync.Client, probe: FileNode
) -> None:
    """Whatever state the output was in when the build ended: what is stored is what was hashed."""
    for _ in range(5):
        request = shell("/inputs/probe leave; sleep 0.05; : >> out", inputs={Name(b"probe"): probe})
        (output,) = client.build(request).outputs
        assert isinstance(output.node, FileNode)
        with client.open_blob(output.node) as file:
            assert len(file.read()) == output.node.size


def test_usage_is_told(client: cupola.sync.Client) -> None:
    logs: list[Log] = []
    script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo x; sleep 0.2; : > out"
    usage = client.build(shell(script), on_log=logs.append).usage
    assert usage.wall_us > 200_000
    assert 10_000 < usage.cpu_us < usage.wall_us * 4
    assert usage.memory_peak > 100_000
