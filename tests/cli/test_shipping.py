"""Which files a node consists of, and how they are sent."""

from __future__ import annotations

import hashlib
import http.client
from pathlib import Path

import pytest
from support.coordinator import running_coordinator
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.shipping import Collected, CollectionError, collect
from dora_cli.shipping.uploading import upload
from dora_config import ResolvedNode
from dora_config.dataflow.resolved import Deploy, ResolvedOperator
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
    deploy = Deploy(working_dir="robot", distribute="http")
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
