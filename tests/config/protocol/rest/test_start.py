"""Specifications of dataflows that are started by a request of the REST API."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.models import StartDataflowFile
from dora_config.protocol.rest.operations import specification

FLOW = "nodes:\n  - id: a\n    path: dynamic\n"


def wanted(directory: Path | str) -> StartDataflowFile:
    return StartDataflowFile(descriptor=FLOW, directory=str(directory))


def test_texts_of_an_object_are_kept() -> None:
    text = "".join(map(chr, [*range(1, 0x250), *range(0x2020, 0x2030), 0xFEFF, 0xFFFE, 0x1F600]))
    given = {"nodes": [{"id": "a", "path": "dynamic", "env": {"A": text.replace("$", "")}}]}
    spec, _ = specification(StartDataflowFile(descriptor=given))
    assert spec.resolved.node("a").env == given["nodes"][0]["env"]


def test_a_folder_is_identified(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    origin = specification(wanted(tmp_path / "link"))[0].origin
    info = tmp_path.stat()
    assert (origin.directory, origin.device, origin.inode) == (
        str(tmp_path.resolve()), info.st_dev, info.st_ino,
    )  # fmt: skip


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    wrong = ["file", "file/x", "loop", "dangling", "missing", "n" * 300, "\0"]
    for directory in (str(tmp_path / name) for name in wrong):
        with pytest.raises(OperationFailed, match="is not a folder on the coordinator") as caught:
            specification(wanted(directory))
        assert caught.value.code == "invalid"
    with pytest.raises(OperationFailed, match="is not an absolute path"):
        specification(wanted("relative"))


def test_a_folder_that_is_removed_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at it may be the first one that fails."""
    look, failing = os.stat, tmp_path / "flow"
    failing.mkdir()

    def removed_after(looks: int) -> None:
        def stat(path: object, *rest: object, **options: object) -> os.stat_result:
            nonlocal looks
            if str(path) == str(failing):
                looks -= 1
                if looks < 0:
                    raise FileNotFoundError(2, "No such file or directory", str(path))
            return look(path, *rest, **options)  # type: ignore[arg-type]

        monkeypatch.setattr("os.stat", stat)

    for looks in (0, 1):
        removed_after(looks)
        with pytest.raises(OperationFailed, match="is not a folder"):
            specification(wanted(failing))
    removed_after(3)  # `Path.resolve` also looks in some versions of Python
    assert specification(wanted(failing))[0].origin.directory == str(failing)
