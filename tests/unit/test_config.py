"""The configuration: every key checked, unknown ones refused, and it is said where each came from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cupolad import cli, config
from cupolad.config import Config, ConfigError


def _load(tmp_path: Path, text: str = "", **drop_ins: str) -> Config:
    main = tmp_path / "cupolad.toml"
    main.write_text(text)
    if drop_ins:
        (tmp_path / "cupolad.toml.d").mkdir()
    for name, content in drop_ins.items():
        (tmp_path / "cupolad.toml.d" / f"{name}.toml").write_text(content)
    return config.load(main)


def test_defaults(tmp_path: Path) -> None:
    defaults = _load(tmp_path)
    assert defaults == Config()
    assert defaults.sandbox.uid_base == 872415232
    assert defaults.policy.available_ro_paths == ()
    assert defaults.limits.frame_bytes == 8 * 1024 * 1024
    assert all(origin == "default" for _, _, origin, _ in defaults.describe())


def test_a_file_and_its_drop_ins(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        "[scheduler]\nmax_builds = 3\n[daemon]\ndrain = 1.5\n",
        b="[scheduler]\nmax_builds = 5\n",
        a="[scheduler]\nmax_builds = 4\n[limits]\ncpus = 0.5\n",
    )
    assert loaded.scheduler.max_builds == 5
    assert loaded.daemon.drain == 1.5
    assert loaded.limits.cpus == 0.5
    origins = {name: Path(origin).name for name, _, origin, _ in loaded.describe()}
    assert origins["scheduler.max_builds"] == "b.toml"
    assert origins["limits.cpus"] == "a.toml"
    assert origins["daemon.drain"] == "cupolad.toml"
    assert origins["daemon.idle_exit"] == "default"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[deamon]\n", r"cupolad\.toml: unknown section \[deamon\]; known are .*\[daemon\]"),
        ("max_builds = 1\n", r"unknown section \[max_builds\]"),
        ("[scheduler]\nmax_build = 1\n", "unknown key scheduler.max_build"),
        ("[scheduler]\nmax_builds = 0\n", r"scheduler\.max_builds must be a whole number above 0"),
        ("[scheduler]\nmax_builds = 1.0\n", "must be a whole number"),
        ("[scheduler]\nmax_builds = true\n", "must be a whole number"),
        ("[scheduler]\nmax_builds = '2'\n", "must be a whole number"),
        ("[scheduler]\nmax_builds = 1000\n", "enough for 128 builds"),
        ("[daemon]\ndrain = -1\n", "number of seconds"),
        ("[daemon]\ndrain = nan\n", "number of seconds"),
        ("[daemon]\ndrain = inf\n", "number of seconds"),
        ("[limits]\nmemory = -1\n", "0 or above"),
        ("[limits]\ncpus = 0.001\n", "number of processors"),
        ("[limits]\nframe_bytes = 1000\n", "2097152 to 4294967295"),
        ("[limits]\nframe_bytes = 3000000\n", "directory_bytes must be at most"),
        ("[sandbox]\nshell = 'busybox'\n", "must be absolute"),
        ("[sandbox]\nruntime = 'bin/runc'\n", "absolute path or a bare name"),
        ("[sandbox]\nsystems = 'x86_64-linux'\n", "list of texts"),
        ("[sandbox]\nuid_base = 1000\n", "multiple of 65536"),
        ("[sandbox]\nuid_base = 65536\nuid_count = 2147483648\n", "below 2"),
        ("[policy]\navailable_ro_paths = ['etc']\n", "must be absolute"),
        ("[policy]\navailable_ro_paths = ['/etc/../root']\n", "must be clean"),
        ("[policy]\nnetwork_access = ['root']\n", "no builds with network access"),
        ("[inputs]\nmode = 'tree'\n", 'must be "fuse"'),
        ("[daemon\n", "cupolad.toml: "),
        ("a = 1\na = 2\n", "cupolad.toml: "),
    ],
)
def test_refused_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _load(tmp_path, text)


def test_a_file_that_is_named_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "absent.toml")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"c\.toml"):
        config.load(tmp_path / "c.toml")


def test_all_limits_are_whole_numbers_for_clients() -> None:
    named = dataclasses.replace(Config().limits, cpus=1.5, wall_seconds=0.2).named()
    assert named["cpus"] == 2
    assert named["wall_seconds"] == 1
    assert all(type(value) is int and value >= 0 for value in named.values())


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cupolad.toml"
    file.write_text("[scheduler]\nmax_builds = 7\n")
    assert cli.run(["--config", str(file), "--check-config"]) == 0
    out = capsys.readouterr().out
    assert f"scheduler.max_builds = 7  # builds that run at once ({file})" in out
    assert "daemon.drain = 60.0" in out
    file.write_text("[scheduler]\nmax_builds = 'x'\n")
    assert cli.run(["--config", str(file), "--check-config"]) == 78
    assert f"cupolad: {file}: scheduler.max_builds must be" in capsys.readouterr().err


def test_the_documentation_has_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    sections = dict(
        re.findall(r"^## `\[(\w+)\]`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    documented = {
        f"{section}.{key}": meaning
        for section, rows in sections.items()
        for key, meaning in re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", rows, re.MULTILINE)
    }
    assert documented == {name: meaning for name, _, _, meaning in Config().describe()}


def test_what_needs_a_restart_stays_as_it_is_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[sandbox]\nshell = "/bin/other"\n[limits]\noutputs = 3\nblob_bytes = 9\n')
    old = config.Config()
    new, changed = old.reloaded(config.load(file))
    assert changed == ["sandbox.shell", "limits.blob_bytes"]
    assert (new.sandbox.shell, new.limits.blob_bytes) == ("/bin/busybox", old.limits.blob_bytes)
    assert new.limits.outputs == 3
    assert old.reloaded(config.Config()) == (config.Config(), [])


def test_the_documentation_says_what_needs_a_restart() -> None:
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    sentence = text.partition("stays in force.")[2].partition("need a restart")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {
        name.partition(".")[2] for name in config.NEED_RESTART
    }
