"""Files of a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.workspace import Workspace

from dora_cli.shipping.sending import CollectionError, collect
from dora_config.dataflow.resolved import ResolvedDeploy, ResolvedNode, ResolvedOperator


def paths(node: ResolvedNode, folder: Path) -> list[str]:
    return collect(node, folder).code.paths


def test_a_python_file_includes_its_folder(workspace: Workspace) -> None:
    for name in ("camera/main.py", "camera/lib/a.py", "camera/__pycache__/x.pyc", "other/b.py"):
        workspace.file(name, "")
    workspace.file("bin/detector", "")
    workspace.file("bin/notes.txt", "")
    assert paths(ResolvedNode(id="n", path="camera/main.py"), workspace.path) == [
        "camera/lib/a.py",
        "camera/main.py",
    ]
    assert paths(ResolvedNode(id="n", path="./bin/detector"), workspace.path) == ["bin/detector"]


def test_the_output_of_the_command_is_left_out(workspace: Workspace) -> None:
    workspace.file("main.py", "")
    kept = os.dup(1)
    with (workspace.path / "log.txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        try:
            collected = collect(ResolvedNode(id="n", path="main.py"), workspace.path)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert collected.code.paths == ["main.py"]
    assert collected.left_out == ("log.txt (output of this command)",)


def test_paths_in_args_env_and_build_are_included(workspace: Workspace) -> None:
    for name in ("n/n.py", "models/yolo.onnx", "config/a.yml", "config/b.yml", "requirements.txt"):
        workspace.file(name, "")
    node = ResolvedNode(
        id="n",
        path="n/n.py",
        args=("--model", "models/yolo.onnx", "--rate=5", "/etc/passwd", "../outside"),
        env={"CONFIG": "config"},
        build=("pip install -r requirements.txt",),
    )
    assert paths(node, workspace.path) == [
        "config/a.yml",
        "config/b.yml",
        "models/yolo.onnx",
        "n/n.py",
        "requirements.txt",
    ]
    option = node.model_copy(update={"args": ("--model=models/yolo.onnx",)})
    assert "models/yolo.onnx" in paths(option, workspace.path)


def test_a_build_with_other_tools_includes_the_whole_folder(workspace: Workspace) -> None:
    for name in ("src/main.c", "Makefile", "out/log", ".git/HEAD", "env/pyvenv.cfg", "env/x"):
        workspace.file(name, "")
    workspace.file("wheels/dora_config-0.1.0-py3-none-any.whl", "")
    workspace.file("wheels/pyarrow-26.0.1-cp311-cp311-linux_x86_64.whl", "")
    node = ResolvedNode(id="n", path="build/main", build=("make",))
    assert paths(node, workspace.path) == ["Makefile", "src/main.c"]


def test_a_folder_of_wheels_that_a_build_line_names_is_sent(workspace: Workspace) -> None:
    workspace.file("n/n.py", "")
    wheel = workspace.file("wheels/dora_config-0.1.0-py3-none-any.whl", "")
    node = ResolvedNode(id="n", path="n/n.py")
    assert paths(node, workspace.path) == ["n/n.py"]
    line = "pip install --no-index --find-links wheels x"
    named = node.model_copy(update={"build": (line,)})
    assert paths(named, workspace.path) == ["n/n.py", f"wheels/{wheel.name}"]


def test_operators_include_their_folders(workspace: Workspace) -> None:
    for name in ("ops/a.py", "ops/helper.py", "b.txt"):
        workspace.file(name, "")
    operator = ResolvedOperator(id="op", python="ops/a.py")
    node = ResolvedNode(id="n", kind="runtime", operators=(operator,))
    assert paths(node, workspace.path) == ["ops/a.py", "ops/helper.py"]


def test_paths_start_at_an_existing_working_dir(workspace: Workspace) -> None:
    workspace.file("robot/n.py", "")
    deploy = ResolvedDeploy(working_dir="robot", distribute="http")
    assert paths(ResolvedNode(id="n", path="n.py", deploy=deploy), workspace.path) == ["n.py"]


def test_links_stay_links_and_include_their_targets(workspace: Workspace) -> None:
    workspace.file("n/n.py", "")
    workspace.file("shared/tool.py", "")
    (workspace.path / "n" / "tool.py").symlink_to("../shared/tool.py")
    (workspace.path / "n" / "whole").symlink_to(workspace.path / "shared")
    found = collect(ResolvedNode(id="n", path="n/n.py"), workspace.path).code
    assert found.paths == ["n/n.py", "shared/tool.py", "n/tool.py", "n/whole"]
    assert [link.target for link in found.links] == ["../shared/tool.py", "../shared"]


def test_a_path_through_a_link(workspace: Workspace) -> None:
    workspace.file("real/n.py", "")
    (workspace.path / "alias").symlink_to("real")
    found = collect(ResolvedNode(id="n", path="alias/n.py"), workspace.path).code
    assert found.paths == ["real/n.py", "alias"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc", "missing"])
def test_links_to_outside_or_missing_files_are_refused(workspace: Workspace, target: str) -> None:
    workspace.file("n/n.py", "")
    (workspace.path / "n" / "link").symlink_to(target)
    with pytest.raises(CollectionError, match="link"):
        collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)


def test_a_link_through_a_link_to_outside_is_refused(workspace: Workspace) -> None:
    workspace.file("n/n.py", "")
    (workspace.path / "n" / "up").symlink_to("..")
    (workspace.path / "n" / "link").symlink_to("up/..")
    with pytest.raises(CollectionError, match=r"link is a link to up/\.\., outside of"):
        collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)


def test_outside_and_missing_files_are_refused(workspace: Workspace) -> None:
    with pytest.raises(CollectionError, match="is outside of"):
        collect(ResolvedNode(id="n", path="../n.py"), workspace.path)
    with pytest.raises(CollectionError, match="does not exist"):
        collect(ResolvedNode(id="n", path="./n.py"), workspace.path)


def test_programs_of_the_target_machine_are_not_sent(workspace: Workspace) -> None:
    for path in ("ffmpeg", "/usr/bin/env", "$HOME/bin/x"):
        assert paths(ResolvedNode(id="n", path=path), workspace.path) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_name_that_is_not_utf8_is_an_error_unless_excluded(
    workspace: Workspace, is_folder: bool
) -> None:
    workspace.file("n.py", "")
    odd = Path(os.fsdecode(os.fsencode(workspace.path) + b"/caf\xe9"))
    if is_folder:
        odd.mkdir()
        (odd / "x").touch()
    else:
        odd.touch()
    node = ResolvedNode(id="n", path="n.py")
    with pytest.raises(CollectionError, match=r"/caf\\xe9.*: the file name is not valid UTF-8"):
        collect(node, workspace.path)
    (workspace.path / ".doraignore").write_bytes(b"caf\xe9\n")
    assert paths(node, workspace.path) == ["n.py"]


def test_an_unreadable_folder_is_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.file("n/n.py", "")

    def refused(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(CollectionError, match="/n: Permission denied"):
        collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)
