"""Hints for imports that failed: the line that cures them, and environments that are not used."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from support.runner.runs import run_flow
from support.workspace import Workspace

from dora_daemon.runner.process.import_failures import explain_import
from dora_daemon.runner.process.injection import LaunchFacts

OLD_NUMPY = ("Traceback", "ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4", "")
MISSING = ("ModuleNotFoundError: No module named 'cv3.dnn'",)


def explained(facts: LaunchFacts, tail: tuple[str, ...], cwd: Path, **variables: str) -> str | None:
    return explain_import(facts, tail, cwd, variables)


@pytest.fixture
def script(tmp_path: Path) -> LaunchFacts:
    path = tmp_path / "nodes" / "a.py"
    return LaunchFacts((sys.executable, "-u", str(path)), path)


def test_an_older_pyarrow_for_numpy_1(script: LaunchFacts, tmp_path: Path) -> None:
    text = explained(script, OLD_NUMPY, tmp_path)
    assert text is not None
    assert text.startswith("its pyarrow needs NumPy 2, and NumPy 1.26.4 is installed; run: ")
    assert text.endswith(f"{shlex.quote(sys.executable)} -m pip install 'pyarrow>=16.1,<26'")


def test_the_environment_of_a_node_has_no_pip(tmp_path: Path) -> None:
    program = tmp_path / ".dora/python-envs/a/bin/dora-echo"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{program.parent}/python\n")
    text = explained(LaunchFacts((str(program),), None), OLD_NUMPY, tmp_path)
    assert text is not None
    assert "add a line `pip install 'pyarrow>=16.1,<26'` to the node's `build`" in text


def test_numpy_that_pyarrow_does_not_find(script: LaunchFacts, tmp_path: Path) -> None:
    tail = ("ImportError: Cannot return a numpy.ndarray if NumPy is not present",)
    text = explained(script, tail, tmp_path)
    assert text is not None
    assert text.endswith(
        f"which ran it, has no NumPy; run: {shlex.quote(sys.executable)} -m pip install numpy"
    )


@pytest.mark.parametrize("where", ["activated", "cwd", "script"])
def test_an_environment_that_has_the_module_is_named(
    script: LaunchFacts, tmp_path: Path, where: str
) -> None:
    home = {"activated": tmp_path / "env", "cwd": tmp_path / ".venv"}.get(
        where, tmp_path / "nodes" / ".venv"
    )
    (home / "lib/python3.11/site-packages/cv3").mkdir(parents=True)
    active = {"VIRTUAL_ENV": str(home)} if where == "activated" else {}
    text = explained(script, MISSING, tmp_path, **active)
    assert text is not None
    assert f"has no module cv3, but {home} has; dora runs nodes with its own Python" in text
    assert text.endswith(f"or write `path: {home}/bin/python` and `args: nodes/a.py`")


def test_without_one_the_build_is_named(script: LaunchFacts, tmp_path: Path) -> None:
    (tmp_path / ".venv/lib/python3.11/site-packages/other").mkdir(parents=True)
    text = explained(script, MISSING, tmp_path)
    assert text == (
        f"{sys.executable}, which ran it, has no module cv3; a line of its `build` can install the"
        " package"
    )


@pytest.mark.parametrize(
    ("facts", "tail"),
    [
        (LaunchFacts((sys.executable, "a.py"), Path("a.py")), ("ValueError: x",)),
        (LaunchFacts((sys.executable, "a.py"), Path("a.py")), ()),
        (LaunchFacts(("uv", "run", "python", "a.py"), Path("a.py")), MISSING),
        (LaunchFacts(("sh", "-c", "python a.py"), None, shell=True), MISSING),
        (LaunchFacts((), None), MISSING),
    ],
)
def test_other_ends(facts: LaunchFacts, tail: tuple[str, ...], tmp_path: Path) -> None:
    assert explained(facts, tail, tmp_path) is None


def test_an_import_after_the_node_connected(workspace: Workspace) -> None:
    workspace.node("a", "from dora import Node\nNode()\nimport module_of_nobody\n")
    ran = run_flow(workspace, {"nodes": [{"id": "a", "path": "a.py"}]})
    assert "exited with code 1: " in ran.outcome("a")
    assert "has no module module_of_nobody; a line of its `build`" in ran.outcome("a")


def test_a_node_of_a_dataflow(workspace: Workspace) -> None:
    workspace.node("a", "import module_of_nobody\n")
    workspace.file(".venv/lib/python3.11/site-packages/module_of_nobody.py", "")
    ran = run_flow(workspace, {"nodes": [{"id": "a", "path": "a.py"}]})
    assert f"but {workspace.path}/.venv has; dora runs nodes with its own" in ran.outcome("a")
