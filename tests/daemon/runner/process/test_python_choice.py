"""Choice of the Python of a node: each step of the order, and missing ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dora_daemon.runner.process.python_choice import PythonChooser, PythonUnusable


def fake_python(path: Path, *, version: str = "3 12", pyarrow: bool = True) -> Path:
    """Write a fake interpreter that counts its runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    missing = "" if pyarrow else "pyarrow"
    path.write_text(f'#!/bin/sh\necho x >> "$0.runs"\necho dora-python {version} {missing}\n')
    path.chmod(0o755)
    return path


def runs(path: Path) -> int:
    return len(Path(f"{path}.runs").read_text().splitlines())


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


def test_first_the_managed_environment(tmp_path: Path, variables: dict[str, str]) -> None:
    managed = fake_python(tmp_path / "env" / "python")
    fake_python(tmp_path / "bin" / "uv")
    chosen = PythonChooser(uv=True).choose(str(managed), variables, tmp_path)
    assert chosen.words == (str(managed),)


def test_uv_on_request(tmp_path: Path, variables: dict[str, str]) -> None:
    uv = fake_python(tmp_path / "bin" / "uv")
    assert PythonChooser(uv=True).choose(None, variables, tmp_path).words == (
        str(uv),
        "run",
        "python",
    )
    assert PythonChooser().choose(None, variables, tmp_path).words == (sys.executable,)


def test_uv_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_daemon.build.python_env.find_uv", lambda _: None)
    with pytest.raises(PythonUnusable, match="`uv` is not on PATH"):
        PythonChooser(uv=True).choose(None, {"PATH": str(tmp_path)}, tmp_path)


def test_then_the_interpreter_that_runs_the_runner(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    fake_python(tmp_path / "bin" / "python3")
    assert PythonChooser().choose(None, variables, tmp_path).words == (sys.executable,)


def test_then_path(tmp_path: Path, variables: dict[str, str]) -> None:
    own = fake_python(tmp_path / "own" / "python", pyarrow=False)
    found = fake_python(tmp_path / "bin" / "python3")
    chosen = PythonChooser(own=str(own)).choose(None, variables, tmp_path)
    assert chosen.words == (str(found),)
    assert PythonChooser(own="").choose(None, variables, tmp_path).words == (str(found),)


def test_without_pyarrow_the_error_names_interpreter_and_remedy(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    managed = fake_python(tmp_path / "env" / "python", pyarrow=False)
    with pytest.raises(PythonUnusable) as caught:
        PythonChooser().choose(str(managed), variables, tmp_path)
    assert f"{managed} (the node's own environment) has no pyarrow" in str(caught.value)
    assert "add a line `pip install pyarrow numpy` to the node's `build`" in str(caught.value)
    own = fake_python(tmp_path / "own" / "python", pyarrow=False)
    with pytest.raises(PythonUnusable, match=f"{own} -m pip install pyarrow numpy"):
        PythonChooser(own=str(own)).choose(None, {**variables, "PATH": ""}, tmp_path)


def test_uv_adds_a_library_only_to_a_project(tmp_path: Path, variables: dict[str, str]) -> None:
    fake_python(tmp_path / "bin" / "uv", pyarrow=False)
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    with pytest.raises(
        PythonUnusable, match="add a line `pip install pyarrow numpy` to the node's"
    ):
        PythonChooser(uv=True).choose(None, variables, nodes)
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(PythonUnusable, match="project that uv runs: uv add pyarrow numpy"):
        PythonChooser(uv=True).choose(None, variables, nodes)


def test_without_any_all_that_were_tried_are_named(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    own = fake_python(tmp_path / "own" / "python", pyarrow=False)
    fake_python(tmp_path / "bin" / "python3", version="2 7")
    fake_python(tmp_path / "bin" / "python", version="3 8")
    with pytest.raises(PythonUnusable) as caught:
        PythonChooser(own=str(own)).choose(None, variables, tmp_path)
    text = str(caught.value)
    assert "has no pyarrow" in text
    assert "is Python 2.7, but nodes need 3.11" in text
    assert "is Python 3.8" in text


def test_one_that_is_too_old_is_named_with_the_remedy(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    managed = fake_python(tmp_path / "env" / "bin" / "python", version="3 10", pyarrow=False)
    with pytest.raises(PythonUnusable) as caught:
        PythonChooser().choose(str(managed), variables, tmp_path)
    assert "is Python 3.10, but nodes need 3.11 or newer" in str(caught.value)
    assert f"remove {tmp_path / 'env'}" in str(caught.value)
    fake_python(tmp_path / "bin" / "uv", version="3 9")
    with pytest.raises(PythonUnusable, match=r"is Python 3\.9, .*: uv python pin 3\.11"):
        PythonChooser(uv=True).choose(None, variables, tmp_path)


def interpreter(folder: Path, script: str) -> Path:
    """Write an interpreter that runs this shell script."""
    path = folder / "env" / "python"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_output_of_a_broken_interpreter(tmp_path: Path, variables: dict[str, str]) -> None:
    broken = interpreter(tmp_path, "echo 'no license' >&2\nexit 3")
    with pytest.raises(PythonUnusable, match="does not work: no license"):
        PythonChooser().choose(str(broken), variables, tmp_path)
    with pytest.raises(PythonUnusable, match="cannot be run"):
        PythonChooser().choose(str(tmp_path / "absent"), variables, tmp_path)


def test_output_of_start_up_files_is_ignored(tmp_path: Path, variables: dict[str, str]) -> None:
    noisy = interpreter(tmp_path, f'echo "Welcome: 3 9"\nexec "{sys.executable}" "$@"')
    assert PythonChooser().choose(str(noisy), variables, tmp_path).words == (str(noisy),)


def test_output_that_is_not_utf8(tmp_path: Path, variables: dict[str, str]) -> None:
    broken = interpreter(tmp_path, "printf 'd\\351faut\\n' >&2\nexit 3")
    with pytest.raises(PythonUnusable, match="does not work: d\N{REPLACEMENT CHARACTER}faut"):
        PythonChooser().choose(str(broken), variables, tmp_path)


def test_an_interpreter_that_does_not_answer(
    tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_daemon.runner.process.python_choice.CHECK_SECONDS", 0.1)
    silent = interpreter(tmp_path, "exec sleep 60")
    with pytest.raises(PythonUnusable, match=r"environment\) did not answer within 0\.1 s$"):
        PythonChooser().choose(str(silent), variables, tmp_path)


def test_each_interpreter_runs_once(tmp_path: Path, variables: dict[str, str]) -> None:
    managed = fake_python(tmp_path / "env" / "python")
    chooser = PythonChooser()
    for _ in range(3):
        chooser.choose(str(managed), variables, tmp_path)
    assert runs(managed) == 1
    chooser.choose(str(managed), {**variables, "PYTHONPATH": "/elsewhere"}, tmp_path)
    assert runs(managed) == 2


def test_an_interpreter_is_usable_once_its_problem_is_solved(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    managed = fake_python(tmp_path / "env" / "python", pyarrow=False)
    chooser = PythonChooser()
    with pytest.raises(PythonUnusable, match="has no pyarrow"):
        chooser.choose(str(managed), variables, tmp_path)
    fake_python(managed)
    assert chooser.choose(str(managed), variables, tmp_path).words == (str(managed),)


def test_the_runners_own_interpreter_is_not_started_for_that(
    tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.run", never)
    PythonChooser().choose(None, variables, tmp_path)
