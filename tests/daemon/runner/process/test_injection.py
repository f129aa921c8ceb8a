"""Injection of our ``dora`` into nodes, and the reasons where it is not possible."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.runner.runs import run_flow
from support.workspace import Workspace

import dora_node_api
from dora_config.plugins import Addition, Plugins
from dora_daemon.runner.process import injection
from dora_daemon.runner.process.injection import (
    LaunchFacts,
    explain,
    link_package,
    make_package_folder,
)


def test_the_folder_contains_our_packages_only(tmp_path: Path) -> None:
    folder = make_package_folder(tmp_path / "packages")
    assert make_package_folder(folder) == folder
    assert sorted(p.name for p in folder.iterdir()) == ["dora", "dora_node_api"]
    ours = Path(dora_node_api.__file__).parent.resolve()
    assert (folder / "dora_node_api").resolve() == ours
    assert (folder / "dora" / "__init__.py").is_file()


def test_a_plug_in_replaces_the_package_of_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_package_folder(tmp_path / "packages")
    assert link_package(folder, "my-program") is None
    replaced = Addition("dora.node_packages", "dora_rerun", "json", "dora-ui")
    found = Plugins([replaced], {"dora-ui": ["1"]})
    monkeypatch.setattr(injection, "installed", lambda: found)
    for _ in range(2):
        assert link_package(folder, "dora-rerun") is None
    assert (folder / "dora_rerun" / "decoder.py").is_file()
    monkeypatch.setattr(injection, "installed", lambda: Plugins([], {}))
    problem = link_package(folder, "dora-rerun")
    assert problem is not None
    assert "package `dora_rerun` of nodes is part of the wheel" in problem


def test_the_folder_contains_this_dora_if_the_runner_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "site" / "dora"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(other.parent))
    monkeypatch.delitem(sys.modules, "dora", raising=False)
    folder = make_package_folder(tmp_path / "packages")
    assert "dora_node_api" in (folder / "dora" / "__init__.py").read_text()


def test_this_dora_comes_before_another_that_is_installed(workspace: Workspace) -> None:
    workspace.file("site/dora/__init__.py", "raise ImportError('the other dora')")
    workspace.node("a", "import dora\nnode = dora.Node()\nprint('connected')\n")
    content = {
        "nodes": [{"id": "a", "path": "a.py", "env": {"PYTHONPATH": str(workspace.path / "site")}}]
    }
    ran = run_flow(workspace, content)
    assert ran.lines("a") == ["connected"]
    assert ran.result is not None
    assert ran.result.ok


def test_this_dora_comes_before_another_that_the_runner_would_find(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.file("site/dora/__init__.py", "raise ImportError('the other dora')")
    # As PYTHONPATH of `dora run`.
    monkeypatch.syspath_prepend(workspace.path / "site")
    monkeypatch.delitem(sys.modules, "dora", raising=False)
    ours = Path(dora_node_api.__file__).resolve().parent.parent
    folder = make_package_folder(workspace.path / "packages")
    assert (folder / "dora").resolve() == ours / "dora"


def test_a_dora_beside_the_script_is_explained(workspace: Workspace) -> None:
    workspace.file("dora/__init__.py", "")
    workspace.node("a", "from dora import Node\n")
    ran = run_flow(workspace, {"nodes": [{"id": "a", "path": "a.py", "outputs": ["x"]}]})
    assert "before it connected" in ran.outcome("a")
    assert f"{workspace.path / 'dora'} lies beside the node's script" in ran.outcome("a")


def test_a_module_dora_py_beside_the_script_is_explained(workspace: Workspace) -> None:
    workspace.file("dora.py", "")
    workspace.node("a", "from dora import Node\n")
    ran = run_flow(workspace, {"nodes": [{"id": "a", "path": "a.py"}]})
    assert f"{workspace.path / 'dora.py'} lies beside the node's script" in ran.outcome("a")


def test_each_of_several_nodes_is_explained(workspace: Workspace) -> None:
    workspace.file("dora.py", "")
    workspace.node("a", "from dora import Node\n")
    nodes = [{"id": name, "path": "a.py", "outputs": ["x"]} for name in "abc"]
    ran = run_flow(workspace, {"nodes": nodes})
    # The first failure ends the start: a node that has not failed by then is a consequence of it.
    own = [name for name in "abc" if not ran.outcome(name).startswith("cascading")]
    assert own
    for name in own:
        assert "before it connected" in ran.outcome(name)
        assert f"{workspace.path / 'dora.py'} lies beside" in ran.outcome(name)


def test_an_isolated_python_is_explained(workspace: Workspace) -> None:
    workspace.node("a", "import sys\nsys.exit('no dora' if sys.flags.isolated else 0)\n")
    content = {"nodes": [{"id": "a", "path": sys.executable, "args": "-u -I a.py"}]}
    outcome = run_flow(workspace, content).outcome("a")
    assert "it runs Python with -I, which ignores PYTHONPATH" in outcome
    assert "leave -I out" in outcome


def test_a_frozen_program_is_explained(workspace: Workspace) -> None:
    false = next(p for p in (Path("/bin/false"), Path("/usr/bin/false")) if p.exists())
    outcome = run_flow(
        workspace, {"nodes": [{"id": "a", "path": str(false), "outputs": ["x"]}]}
    ).outcome("a")
    assert "a binary (such as a frozen application)" in outcome


def test_process_that_ends_without_a_node(workspace: Workspace) -> None:
    workspace.node("a", "print('hello')")
    ran = run_flow(workspace, {"nodes": [{"id": "a", "path": "a.py", "outputs": ["x"]}]})
    assert "never created a dora `Node()`" in ran.outcome("a")


@pytest.mark.parametrize(
    ("first_line", "flag"),
    [
        ("#!/usr/bin/python3 -I", "-I"),
        ("#!/usr/bin/env -S python3 -E", "-E"),
        ("#!/usr/bin/python3", None),
        ("#!/bin/sh -e", None),
    ],
)
def test_flags_in_the_first_line_of_a_script(
    tmp_path: Path, first_line: str, flag: str | None
) -> None:
    script = tmp_path / "tool"
    script.write_text(f"{first_line}\n")
    found = explain(LaunchFacts((str(script),), None))
    assert (flag is not None) == (found is not None)
    if flag is not None and found is not None:
        assert f"Python with {flag}" in found


def test_a_folder_that_cannot_be_read_explains_nothing(tmp_path: Path) -> None:
    script = tmp_path / ("x" * 300) / "a.py"
    assert explain(LaunchFacts(("python3", str(script)), script)) is None


def test_flags_of_the_script_are_not_pythons(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    facts = LaunchFacts(("python3", "-u", str(script), "-I"), script)
    assert explain(facts) is None
    assert explain(LaunchFacts(("sh", "-c", "python -I x"), None, shell=True)) is None
