"""`dora doctor`: what it finds, and that it fails only for what dora cannot do without."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from cli.conftest import Dora

from dora_cli import diagnosis
from dora_cli.diagnosis import Finding, Verdict


def test_this_machine_is_fit(dora: Dora, hello: Path) -> None:
    shown = dora("doctor", "--dataflow", hello.name, "--coordinator-port", "1")
    assert shown.code == 0, shown.out
    subjects = [line.split(":")[0] for line in shown.out.splitlines()]
    assert subjects[:3] == ["PASS  dora", "PASS  Python", "PASS  pyarrow"]
    assert "WARN  coordinator: none at 127.0.0.1:1; `dora run` needs none" in shown.out
    assert shown.out.endswith("PASS  dataflow: hello.yml: 2 nodes\n")


def test_a_bad_file_fails(dora: Dora, hello: Path) -> None:
    hello.write_text("nodes:\n  - id: a\n    pth: x\n")
    shown = dora("doctor", "--dataflow", hello.name)
    assert shown.code == 1
    assert "FAIL  dataflow: hello.yml:3:5: " in shown.out
    assert shown.err.startswith("[ERROR]\n1 of ")
    assert dora("doctor", "--dataflow", "missing.yml").code == 1


def test_a_wheel_that_is_missing_or_older_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(wheel: str) -> str:
        if wheel == "dora-daemon":
            raise PackageNotFoundError(wheel)
        return "0.0.1" if wheel == "dora-cli" else "0.1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    missing, differ = diagnosis.check_versions()
    assert missing == Finding(Verdict.FAIL, "dora-daemon", "not installed: pip install dora-daemon")
    assert differ.verdict is Verdict.FAIL
    assert "dora-cli 0.0.1" in differ.text


def test_programs_that_are_not_there_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("dora_daemon.build.python_env.find_uv", lambda environ: None)
    assert [f.verdict for f in diagnosis.check_programs()] == [Verdict.WARN, Verdict.WARN]


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_coordinator_that_answers(listening: int) -> None:
    (finding,) = diagnosis.check_coordinator("127.0.0.1", listening)
    assert finding == Finding(Verdict.PASS, "coordinator", f"answers at 127.0.0.1:{listening}")


def test_pipes_that_cannot_grow_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, command: int, size: int) -> int:
        raise PermissionError

    monkeypatch.setattr("fcntl.fcntl", refuse)
    pipes, _ = diagnosis.check_pipes()
    assert pipes.verdict is Verdict.WARN


def test_a_state_folder_that_cannot_be_written_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [f.verdict for f in diagnosis.check_state_dir()] == [Verdict.PASS]
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert [f.verdict for f in diagnosis.check_state_dir()] == [Verdict.FAIL]
