"""`dora new`: the created files work."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.command_line import Dora
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_cli.templates import package_name


def test_a_dataflow(dora: Dora, tmp_path: Path) -> None:
    shown = dora("new", "hello")
    assert shown.out == (
        "created dataflow hello:\n"
        "  hello/dataflow.yml\n"
        "  hello/talker.py\n"
        "  hello/listener.py\n"
        "  hello/test_dataflow.py\n"
        "  hello/README.md\n"
        "  hello/.gitignore\n"
        "next:\n"
        "  cd hello\n"
        "  dora run dataflow.yml\n"
    )
    checked = dora("validate", "hello/dataflow.yml")
    assert checked.out == "hello/dataflow.yml: 3 nodes, 2 edges, no problems\n"


def test_a_node_passes_its_own_test(dora: Dora, tmp_path: Path) -> None:
    assert dora("new", "my-node", "--kind", "node").code == 0
    folder = tmp_path / "my-node"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "README.md",
        "my_node/__init__.py",
        "my_node/main.py",
        "pyproject.toml",
        "tests/test_my_node.py",
    ]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    needed = {Requirement(line).name for line in project["dependencies"]}
    assert needed == {"numpy", "pyarrow"}  # names of ours cannot be installed in an environment
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests"],
        cwd=folder,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    yield from plugin_wheels(tmp_path, monkeypatch)


def test_a_project_of_a_plugin(dora: Dora, wheels: PluginWheels, tmp_path: Path) -> None:
    module = "def files(name):\n    return {'a/b.txt': name}, ['cat a/b.txt']\n"
    added = {"dora.templates": {"hello": "hello_project:files", "node": "json:loads"}}
    wheels.install("dora-hello", added, hello_project=module)
    shown = dora("new", "folder/mine", "--kind", "hello")
    assert shown.out == (
        "created hello folder/mine:\n  folder/mine/a/b.txt\nnext:\n"
        "  cd folder/mine\n  cat a/b.txt\n"
    )
    assert (tmp_path / "folder/mine/a/b.txt").read_text() == "mine"
    assert "created node" in dora("new", "own", "--kind", "node").out


@pytest.mark.parametrize("path", ["../evil.txt", "/evil.txt", "a/../../evil.txt"])
def test_a_template_writes_only_in_its_project(
    dora: Dora, wheels: PluginWheels, tmp_path: Path, path: str
) -> None:
    module = f"def files(name):\n    return {{{path!r}: name}}, []\n"
    wheels.install(
        "dora-evil", {"dora.templates": {"evil": "evil_project:files"}}, evil_project=module
    )
    sys.modules.pop("evil_project", None)
    shown = dora("new", "mine", "--kind", "evil")
    assert shown.code == 2
    assert f"the template 'evil' has a file outside the project: {path}" in shown.err
    assert not (tmp_path / "mine").exists()


def test_kinds_that_are_not_installed(dora: Dora) -> None:
    shown = dora("new", "mine", "--kind", "robot")
    assert shown.code == 2
    assert "'robot' is not a kind that is installed: dataflow, node" in shown.err
    assert not Path("mine").exists()


def test_a_name_with_a_space_is_quoted(dora: Dora) -> None:
    assert "  cd 'my flow'\n" in dora("new", "my flow").out


def test_a_full_disk_leaves_no_partial_folder(
    dora: Dora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "listener.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    shown = dora("new", "hello")
    assert shown.code == 1
    assert shown.err.startswith("[ERROR]\nhello/listener.py: No space left on device; ")
    assert not (tmp_path / "hello").exists()


def test_an_existing_folder_is_not_changed(dora: Dora, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    shown = dora("new", "there")
    assert shown.code == 1
    assert shown.err == "[ERROR]\nthere already exists; choose another name or remove it\n"
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("words", [["--lang", "rust"], ["--kind", "robot"]])
def test_unsupported_languages_and_kinds(dora: Dora, words: list[str]) -> None:
    assert dora("new", "x", *words).code == 2


def test_invalid_names(dora: Dora) -> None:
    assert dora("new", "1 2", "--kind", "node").code == 2
    assert "Python keyword" in dora("new", "class", "--kind", "node").err
    assert "ASCII letters" in dora("new", "zähler", "--kind", "node").err
    assert dora("new", "zähler").code == 0
    assert package_name("My node.2") == "my_node_2"
