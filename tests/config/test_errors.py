"""Problems as text and JSON, and the hierarchy of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dora_config
from dora_config.access import private_dir
from dora_config.errors import (
    ConfigError,
    DoraError,
    InvalidId,
    InvalidTransition,
    Problem,
    exit_code,
)


def test_problem_names_file_line_and_column() -> None:
    problem = Problem("flow.yml", 3, 7, "wrong", hint="do this")
    assert str(problem) == "flow.yml:3:7: wrong (do this)"


def test_problem_of_a_whole_file_has_no_line() -> None:
    assert str(Problem("flow.yml", 0, 0, "cannot be read")) == "flow.yml: cannot be read"


def test_text_of_a_warning_has_its_severity() -> None:
    assert "flow.yml:1:1: warning: old" in str(Problem("flow.yml", 1, 1, "old", severity="warning"))


def test_json_has_the_keys_of_editors() -> None:
    full = Problem("f", 1, 2, "m", hint="h", severity="warning", end_line=3, end_column=4)
    assert full.to_json() == {
        "file": "f",
        "line": 1,
        "column": 2,
        "endLine": 3,
        "endColumn": 4,
        "severity": "warning",
        "message": "m",
        "hint": "h",
    }
    assert set(Problem("f", 1, 2, "m").to_json()) == {
        "file",
        "line",
        "column",
        "severity",
        "message",
    }


def test_config_error_lists_every_problem_and_keeps_errors_apart() -> None:
    error = ConfigError([Problem("f", 1, 1, "a", severity="warning"), Problem("f", 2, 1, "b")])
    assert str(error).splitlines() == ["f:1:1: warning: a", "f:2:1: b"]
    assert [problem.message for problem in error.errors] == ["b"]


@pytest.mark.parametrize("name", ["ConfigError", "RemoteProtocolError", "InvalidId"])
def test_every_error_is_a_dora_error(name: str) -> None:
    assert issubclass(getattr(dora_config.errors, name), DoraError)


def test_invalid_id_is_a_value_error_with_the_value() -> None:
    error = InvalidId("x y", "no blanks")
    assert isinstance(error, ValueError)
    assert (error.value, str(error)) == ("x y", "no blanks")


def test_invalid_transition_names_subject_state_and_event() -> None:
    assert str(InvalidTransition("camera", "running", "Spawned")) == (
        "camera cannot handle 'Spawned' in state running"
    )


def test_every_public_name_can_be_imported() -> None:
    for name in dora_config.__all__:
        assert getattr(dora_config, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dora_config.nothing


def test_the_package_starts_without_pydantic_and_yaml() -> None:
    code = "import sys, dora_config; print([m for m in ('pydantic', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_of_a_command_are_messages(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> int:
        raise error

    inner = ExceptionGroup("", [DoraError("two"), DoraError("three")])
    assert exit_code(lambda: 7) == 7
    assert exit_code(lambda: fail(DoraError("one"))) == 1
    assert exit_code(lambda: fail(ExceptionGroup("", [DoraError("one"), inner]))) == 1
    assert capsys.readouterr().err == "[ERROR]\none\n[ERROR]\none\ntwo\nthree\n"
    with pytest.raises(ExceptionGroup):
        exit_code(lambda: fail(ExceptionGroup("", [DoraError("one"), KeyError("a fault of ours")])))
    with pytest.raises(KeyError):
        exit_code(lambda: fail(KeyError("a fault of ours")))
    with pytest.raises(OSError, match="full"):
        exit_code(lambda: fail(OSError(28, "full")))  # only the traceback contains the place


def test_unusable_folder_is_a_message_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    def run() -> int:
        private_dir(tmp_path / "file" / "state")
        return 0

    assert exit_code(run) == 1
    written = capsys.readouterr().err
    assert written.startswith(f"[ERROR]\n{tmp_path}/file")
    assert "Traceback" not in written
