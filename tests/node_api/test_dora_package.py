"""The `dora` module: every name that ready-made nodes import, and nothing loaded before its use."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.plugin_wheels import PluginWheels, plugin_wheels

import dora
import dora_node_api
from dora_config.plugins import INTERFACE
from dora_node_api import plugins


def test_names() -> None:
    assert {name for name in dora.__all__ if getattr(dora, name) is None} == set()
    assert dora.Node is dora_node_api.Node
    assert [status.value for status in dora.DoraStatus] == [0, 1, 2]
    assert dora.builder.DataflowBuilder is not None
    assert dora.testing.MockNode is dora_node_api.MockNode
    assert set(dora.__all__) <= set(dir(dora))


def test_every_public_name_of_the_package_exists() -> None:
    for name in dora_node_api.__all__:
        assert getattr(dora_node_api, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        dora_node_api.nothing  # noqa: B018


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    for name in ("Hello", "Ros2Context"):
        vars(dora).pop(name, None)
    yield from plugin_wheels(tmp_path, monkeypatch)
    vars(dora).pop("Hello", None)


def test_import_of_all_names() -> None:
    """As in dora-rs."""
    names: dict[str, object] = {}
    exec("from dora import *", names)
    assert {"Node", "DoraStatus", "run", "build"} <= names.keys()


def test_the_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    vars(dora).pop("Ros2Context", None)
    assert not hasattr(dora, "Ros2Context")
    assert not [name for name in dora.__all__ if name.startswith("Ros2")]
    with pytest.raises(AttributeError, match="pip install packages/dora-ros2"):
        dora.Ros2Context  # noqa: B018
    with pytest.raises(ImportError, match="pip install packages/dora-ros2"):
        from dora import Ros2Context  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'dora'"):
        from dora import Nothing  # noqa: F401


def test_names_of_plug_ins_are_found(wheels: PluginWheels) -> None:
    wheels.install("dora-hello", {"dora.node_api": {"Hello": "json:loads"}})
    assert dora.Hello is json.loads
    assert "Hello" in dir(dora)
    with pytest.raises(AttributeError, match="module 'dora' has no attribute 'Nothing'"):
        dora.Nothing  # noqa: B018


def test_a_plug_in_of_another_version_is_refused(wheels: PluginWheels) -> None:
    wheels.install("dora-hello", {"dora.node_api": {"Hello": "json:loads"}}, interface="2")
    with pytest.raises(AttributeError, match="is for version 2 of the interface"):
        dora.Hello  # noqa: B018


def test_a_bundled_name_stays_that_of_dora(wheels: PluginWheels) -> None:
    own = {"dora.node_api": {"Ros2Context": "json:dumps"}}
    wheels.install("dora-acme", {"dora.node_api": {"Ros2Context": "json:loads"}})
    wheels.install("dora-ros2", own)  # in place of the one that may be installed
    assert plugins.load("Ros2Context") is json.dumps


def test_the_interface_of_plug_ins_has_one_version() -> None:
    assert plugins.INTERFACE == INTERFACE


def test_importing_it_loads_little() -> None:
    code = "import sys; from dora import Node; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"pyarrow", "numpy", "asyncio", "logging", "dataclasses", "inspect", "pathlib", "uuid"}
    assert not heavy & loaded
    assert "dora_node_api.operators" not in loaded


def test_run_and_build_call_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def call(words: list[str]) -> int:
        calls.append(words[1:])
        return 3 if "bad.yml" in words else 0

    monkeypatch.setattr(subprocess, "call", call)
    dora.run("a.yml", uv=True, stop_after=2.5)
    dora.build("a.yml", coordinator_addr="192.0.2.1", coordinator_port=7, force_local=True)
    launcher = ["-m", "dora_config.launcher"]
    assert calls == [
        [*launcher, "run", "a.yml", "--uv", "--stop-after", "2.5s"],
        [
            *(*launcher, "build", "a.yml", "--coordinator-addr", "192.0.2.1"),
            *("--coordinator-port", "7", "--local"),
        ],
    ]
    with pytest.raises(RuntimeError, match="exit code 3"):
        dora.run("bad.yml")


def test_run_without_the_command_line_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install packages/\*$"):
        dora.run("a.yml")


@pytest.mark.parametrize("name", ["dora", "dora_node_api", "dora.testing"])
def test_an_interpreter_that_is_too_old_is_named_with_the_remedy(name: str) -> None:
    code = f"import sys; sys.version_info = (3, 10, 13, 'final', 0); import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    sentence = done.stderr.splitlines()[-1]
    assert f"needs Python 3.11 or newer, but {sys.executable} is Python 3.10" in sentence
    assert "uv venv --python 3.11" in sentence


@pytest.mark.parametrize("package", [dora, dora_node_api])
def test_old_interpreters_can_parse_the_check(package: object) -> None:
    text = Path(package.__file__).read_text()  # type: ignore[attr-defined]
    tree = ast.parse(text, feature_version=(3, 7))
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 0]
    assert "__future__" not in [node.module for node in futures]
