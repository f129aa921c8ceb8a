"""A runner moves to the unit of its daemon's unit file, or stays if this fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_daemon.runner.process import runners_unit

UNIT = "dora-nodes-robot.service"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with the arguments of a fake `busctl`, which ends with the test's `end.sh`."""
    words = tmp_path / "words"
    program = tmp_path / "busctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {words}\n. {tmp_path}/end.sh\n')
    program.chmod(0o755)
    (tmp_path / "end.sh").write_text("exit 0\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return words


@pytest.mark.parametrize("manager", ["system", "user"])
def test_request_to_the_manager_of_the_unit(
    called: Path, manager: str, capfd: pytest.CaptureFixture[str]
) -> None:
    environ = {"DORA_RUNNERS_UNIT": f"{manager}:{UNIT}", "PATH": "/bin"}
    runners_unit.enter(environ).finish()
    assert environ == {"PATH": "/bin"}, "nodes do not inherit the variable"
    words = called.read_text().split()
    assert words[0] == f"--{manager}"
    assert words[-3:] == [UNIT, "1", str(os.getpid())]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("environ", [{}, {"DORA_RUNNERS_UNIT": ""}])
def test_without_a_unit_there_is_no_request(called: Path, environ: dict[str, str]) -> None:
    runners_unit.enter(environ).finish()
    assert not called.exists()


def test_a_refusal_is_a_line_in_the_log(called: Path, capfd: pytest.CaptureFixture[str]) -> None:
    called.with_name("end.sh").write_text("echo 'Call failed: Unit not loaded' >&2; exit 1\n")
    runners_unit.enter({"DORA_RUNNERS_UNIT": f"system:{UNIT}"}).finish()
    assert capfd.readouterr().err == f"cannot enter {UNIT}: Call failed: Unit not loaded\n"


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("exit 7", "busctl ended with code 7"),
        ("kill -KILL $$", "busctl ended with code -9"),
        ("printf 'caf\\351' >&2; exit 1", "caf\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_an_unusual_end_of_busctl_is_a_line_in_the_log(
    called: Path, end: str, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    called.with_name("end.sh").write_text(f"{end}\n")
    runners_unit.enter({"DORA_RUNNERS_UNIT": f"system:{UNIT}"}).finish()
    assert capfd.readouterr().err == f"cannot enter {UNIT}: {problem}\n"


def test_a_runner_starts_although_systemd_does_not_answer(
    called: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runners_unit, "TIMEOUT", 0.1)
    called.with_name("end.sh").write_text("exec sleep 60\n")
    runners_unit.enter({"DORA_RUNNERS_UNIT": f"system:{UNIT}"}).finish()
    assert capfd.readouterr().err == f"cannot enter {UNIT}: systemd did not answer within 0.1 s\n"


def test_without_busctl_a_runner_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runners_unit.enter({"DORA_RUNNERS_UNIT": f"system:{UNIT}"}).finish()
    assert capfd.readouterr().err == f"cannot enter {UNIT}: busctl: No such file or directory\n"
