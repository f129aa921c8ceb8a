"""Checks of `dora doctor` fail only for required features."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_cli import diagnosis
from dora_cli.diagnosis import Finding
from dora_config.installation import wheel_command
from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT, DaemonFiles, state_directory


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    yield from plugin_wheels(tmp_path, monkeypatch)


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_missing_or_older_wheel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(wheel: str) -> str:
        if wheel == "dora-daemon":
            raise PackageNotFoundError(wheel)
        return "0.0.1" if wheel == "dora-cli-core" else "0.1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    missing, differ = diagnosis.check_versions()
    assert missing == Finding(
        "FAIL", "dora-daemon", f"not installed: {wheel_command('dora-daemon')}"
    )
    assert differ.result == "FAIL"
    assert "dora-cli-core 0.0.1" in differ.text


def test_missing_programs_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("dora_daemon.build.python_env.find_uv", lambda environ: None)
    assert [f.result for f in diagnosis.check_programs()] == ["WARN", "WARN"]


def test_a_listening_coordinator_passes(listening: int) -> None:
    (finding,) = diagnosis.check_coordinator("127.0.0.1", listening)
    assert finding == Finding("PASS", "coordinator", f"answers at 127.0.0.1:{listening}")


def test_pipes_of_limited_size_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, command: int, size: int) -> int:
        raise PermissionError

    monkeypatch.setattr("fcntl.fcntl", refuse)
    pipes, _ = diagnosis.check_pipes()
    assert pipes.result == "WARN"


def test_a_read_only_state_folder_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.result for f in diagnosis.check_state_dir()] == ["PASS"]
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.F_OK)
    assert [f.result for f in diagnosis.check_state_dir()] == ["FAIL"]


def test_a_running_daemon_passes(home: Path) -> None:
    (finding,) = diagnosis.check_daemon()
    assert finding.result == "WARN"
    files = [DaemonFiles(state_directory(name, DEFAULT_LISTEN_PORT)) for name in ("arm", None)]
    (finding,) = diagnosis.check_daemon()
    assert finding == Finding("PASS", "daemon", "runs (no machine id, arm)")
    for one in files:
        one.close()


def test_state_of_a_daemon_that_cannot_be_read_is_a_warning(home: Path) -> None:
    files = DaemonFiles(state_directory("arm", DEFAULT_LISTEN_PORT))
    (files.directory.parent / "notes.txt").touch()
    lock = files.directory.parent / "broken" / "lock"
    lock.mkdir(parents=True)
    unreadable, finding = diagnosis.check_daemon()
    assert finding == Finding("PASS", "daemon", "runs (arm)")
    assert unreadable.result == "WARN"
    assert unreadable.text.startswith(f"{lock}: Is a directory; correct its type")
    files.close()
    (only,) = diagnosis.check_daemon()
    assert only == unreadable


def test_an_invalid_host_name_is_a_warning() -> None:
    (finding,) = diagnosis.check_coordinator("a..b", 1)
    assert finding.result == "WARN"


def test_a_pyarrow_for_another_numpy_is_not_blamed_on_plugins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrow = "x cannot be imported (ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4)"
    monkeypatch.setattr("dora_config.plugins.problems", lambda *_: iter([arrow, "y is old"]))
    assert [found.text for found in diagnosis.check_plugins()] == ["y is old"]


@pytest.mark.parametrize("installed", [True, False])
def test_codecs_that_lack_a_library_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(
        "dora_config.dataflow.compression.find_spec", lambda _: object() if installed else None
    )
    (found,) = diagnosis.check_codecs()
    assert found.result == "PASS"
    assert found.text.startswith("jpeg, h264, lz4, zstd" if installed else "jpeg, lz4, zstd; h264")
    assert ("pip install" in found.text) is not installed


def test_checks_of_plug_ins(wheels: PluginWheels) -> None:
    module = (
        "from dora_cli.diagnosis import Finding\n"
        "def battery(): return [Finding('WARN', 'battery', '9 V')]\n"
        "def broken(): raise OSError('no bus')\n"
    )
    names = {"battery": "plug_check:battery", "broken": "plug_check:broken", "gone": "none:none"}
    wheels.install("a", {"dora.checks": names}, plug_check=module)
    found = [one for one in diagnosis.checks_of_plugins() if one.subject in ("battery", "plug-ins")]
    assert found[0] == diagnosis.Finding("WARN", "battery", "9 V")
    assert len(found) == 2
    assert "check `broken` of `dora doctor` of the plug-in a 0.3 cannot check" in found[1].text
    assert "(OSError: no bus)" in found[1].text
