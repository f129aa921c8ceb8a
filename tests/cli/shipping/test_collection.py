"""Which files a node consists of, and how they are sent."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import stat
from contextlib import chdir
from pathlib import Path

import pytest
from support.coordinator import running_coordinator
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.shipping.collection import Collected, CollectionError, collect
from dora_cli.shipping.http_upload import upload
from dora_config import ResolvedNode
from dora_config.dataflow.resolved import ResolvedDeploy, ResolvedOperator
from dora_config.protocol.code import CodeSet


def paths(node: ResolvedNode, folder: Path) -> list[str]:
    return collect(node, folder).code.paths


def test_a_python_file_brings_its_folder_and_a_program_itself(workspace: Workspace) -> None:
    for name in ("camera/main.py", "camera/lib/a.py", "camera/__pycache__/x.pyc", "other/b.py"):
        workspace.file(name, "")
    workspace.file("bin/detector", "")
    workspace.file("bin/notes.txt", "")
    assert paths(ResolvedNode(id="n", path="camera/main.py"), workspace.path) == [
        "camera/lib/a.py",
        "camera/main.py",
    ]
    assert paths(ResolvedNode(id="n", path="./bin/detector"), workspace.path) == ["bin/detector"]


def test_words_that_name_files_bring_them(workspace: Workspace) -> None:
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


def test_a_build_by_other_tools_needs_everything(workspace: Workspace) -> None:
    for name in ("src/main.c", "Makefile", "out/log", ".git/HEAD", "env/pyvenv.cfg", "env/x"):
        workspace.file(name, "")
    node = ResolvedNode(id="n", path="build/main", build=("make",))
    assert paths(node, workspace.path) == ["Makefile", "src/main.c"]


def test_operators_bring_their_folders(workspace: Workspace) -> None:
    for name in ("ops/a.py", "ops/helper.py", "b.txt"):
        workspace.file(name, "")
    operator = ResolvedOperator(id="op", python="ops/a.py")
    node = ResolvedNode(id="n", kind="runtime", operators=(operator,))
    assert paths(node, workspace.path) == ["ops/a.py", "ops/helper.py"]


def test_a_working_dir_that_is_here_too_is_where_paths_start(workspace: Workspace) -> None:
    workspace.file("robot/n.py", "")
    deploy = ResolvedDeploy(working_dir="robot", distribute="http")
    assert paths(ResolvedNode(id="n", path="n.py", deploy=deploy), workspace.path) == ["n.py"]


def test_links_inside_stay_links_and_bring_what_they_lead_to(workspace: Workspace) -> None:
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
def test_links_that_lead_out_or_nowhere_are_refused(workspace: Workspace, target: str) -> None:
    workspace.file("n/n.py", "")
    (workspace.path / "n" / "link").symlink_to(target)
    with pytest.raises(CollectionError, match="link"):
        collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)


def test_what_lies_outside_or_nowhere_is_refused(workspace: Workspace) -> None:
    with pytest.raises(CollectionError, match="lies outside of"):
        collect(ResolvedNode(id="n", path="../n.py"), workspace.path)
    with pytest.raises(CollectionError, match="there is no file at"):
        collect(ResolvedNode(id="n", path="./n.py"), workspace.path)


def test_programs_of_the_machine_are_not_sent(workspace: Workspace) -> None:
    for path in ("ffmpeg", "/usr/bin/env", "$HOME/bin/x"):
        assert paths(ResolvedNode(id="n", path=path), workspace.path) == []


def test_editor_files_sockets_and_caches_are_left_out(workspace: Workspace) -> None:
    for name in ("n/n.py", "n/__pycache__/n.pyc", "n/.mypy_cache/x", "n/.venv/pyvenv.cfg"):
        workspace.file(name, "")
    folder = workspace.path / "n"
    (folder / ".#n.py").symlink_to("somebody@desk.1234:1700000000")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, chdir(folder):
        listener.bind("control.sock")
    if os.geteuid() == 0:
        os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    found = collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)
    assert found.code.paths == ["n/n.py"]
    assert set(found.left_out) - {"n/null (device)"} == {
        *("n/.#n.py", "n/.mypy_cache/", "n/.venv/", "n/__pycache__/"),
        *("n/control.sock (socket)", "n/pipe (FIFO)"),
    }


def test_doraignore_has_the_rules_of_gitignore(workspace: Workspace) -> None:
    for name in (
        "n/n.py",
        "n/a.bag",
        "n/keep.bag",
        "n/rec/b.txt",
        "n/rec/c.txt",
        "n/top/x",
        "top/x",
    ):
        workspace.file(name, "")
    workspace.file("n/node_modules/x.js", "")
    workspace.file(".doraignore", "# recordings\n*.bag\n!keep.bag\n/top/\n!node_modules/\n")
    workspace.file("n/rec/.doraignore", "*\n!c.txt\n")
    found = collect(ResolvedNode(id="n", path="n/n.py", build=("make",)), workspace.path)
    assert found.code.paths == [
        *("n/keep.bag", "n/n.py", "n/node_modules/x.js", "n/rec/c.txt", "n/top/x"),
    ]


@pytest.mark.parametrize("folder", ["out/run", "node_modules/m", "ignored/model"])
def test_what_a_node_names_is_sent_in_any_case(workspace: Workspace, folder: str) -> None:
    workspace.file(f"{folder}/n.py", "")
    workspace.file(f"{folder}/a/b.txt", "")
    workspace.file(f"{folder}/__pycache__/n.pyc", "")
    workspace.file("x.bin", "")
    workspace.file(".doraignore", "ignored/\n*.bin\n")
    node = ResolvedNode(id="n", path=f"{folder}/n.py", args=("x.bin",))
    assert paths(node, workspace.path) == [f"{folder}/a/b.txt", f"{folder}/n.py", "x.bin"]
    option = ResolvedNode(id="n", path="ffmpeg", args=(f"--from={folder.partition('/')[0]}",))
    assert paths(option, workspace.path) == [f"{folder}/a/b.txt", f"{folder}/n.py"]


def test_an_invalid_pattern_is_an_error_with_its_line(workspace: Workspace) -> None:
    workspace.file("n.py", "")
    workspace.file(".doraignore", "*.bag\n!\n")
    with pytest.raises(CollectionError, match=r"\.doraignore:2: invalid pattern '!'"):
        collect(ResolvedNode(id="n", path="n.py"), workspace.path)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_name_that_is_not_utf8_is_an_error_unless_it_is_left_out(
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


def test_a_folder_that_cannot_be_read_is_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.file("n/n.py", "")

    def refused(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(CollectionError, match="/n: Permission denied"):
        collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)


@pytest.mark.integration
def test_a_cut_upload_goes_on_where_it_ended(workspace: Workspace) -> None:
    content = bytes(range(256)) * 4096
    digest, arrived = hashlib.sha256(content).hexdigest(), 300_000
    with running_coordinator() as coordinator:
        path, there = f"/api/files/{digest}", coordinator.endpoint
        cut = http.client.HTTPConnection(there.host, there.port, timeout=60)
        cut.putrequest("PUT", path)
        for name, value in {**there.headers(), "Content-Length": str(len(content))}.items():
            cut.putheader(name, value)
        cut.endheaders(content[:arrived])
        cut.close()
        wait_until(
            lambda: (
                coordinator.request(path, method="HEAD").headers["x-dora-offset"] == str(arrived)
            ),
            what="what was sent to be kept",
        )
        # Whoever sends all of this file once more is refused.
        rest = workspace.file("model.bin", "")
        rest.write_bytes(bytes(arrived) + content[arrived:])
        upload(there, [Collected(CodeSet(files=()), {digest: rest})])
        assert coordinator.request(path).body == content
