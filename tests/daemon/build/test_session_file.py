"""Session files: the id stays, and a change of build inputs invalidates the last build."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.protocol.builds import BuiltNode
from dora_config.protocol.runner import NodeLocation
from dora_daemon.build.errors import SessionFileError
from dora_daemon.build.session_file import (
    fingerprint,
    read_session,
    record_build,
    session_file_path,
)
from dora_daemon.out_dir import prepare_out_dir


def _dataflow(build: str) -> ResolvedDataflow:
    return ResolvedDataflow.model_validate(
        {"nodes": [{"id": "n", "path": "n.py", "build": [build]}]}
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    nodes = (
        BuiltNode(node="a", place=NodeLocation(working_dir="/w", python="/p"), commit="c" * 40),
        BuiltNode(node="b", place=NodeLocation(working_dir="/w/x")),
    )
    session = record_build(file, str(uuid.uuid4()), "1234", nodes=nodes)
    assert read_session(file) == session
    assert record_build(file, str(uuid.uuid4()), "1234").session_id == session.session_id
    assert session.places(Path("/w")) == {
        "a": NodeLocation(python="/p"),
        "b": NodeLocation(working_dir="/w/x"),
    }
    assert session_file_path(file) == tmp_path / "out" / "flow.dora-session.yaml"
    assert (tmp_path / "out" / ".gitignore").read_text() == "*\n"


def test_the_id_stays_when_the_build_inputs_change(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    before = fingerprint(_dataflow("make"), uv=False)
    session = record_build(file, str(uuid.uuid4()), before)
    assert read_session(file, current=before).build_id == session.build_id
    for changed in (
        fingerprint(_dataflow("make all"), uv=False),
        fingerprint(_dataflow("make"), uv=True),
    ):
        later = read_session(file, current=changed)
        assert (later.session_id, later.build_id) == (session.session_id, None)


@pytest.mark.parametrize("text", ["", "[]", "session_id: 5", "session_id: x", "a: ["])
def test_a_file_that_cannot_be_read_begins_a_new_session(tmp_path: Path, text: str) -> None:
    file = tmp_path / "flow.yml"
    path = session_file_path(file)
    path.parent.mkdir()
    path.write_text(text)
    first, second = read_session(file), read_session(file)
    assert first.session_id != second.session_id
    assert first.build_id is None


def test_a_gitignore_of_the_user_is_left(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    prepare_out_dir(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    session_file_path(flow).mkdir(parents=True)
    with pytest.raises(SessionFileError, match=r": cannot be written: Is a directory$"):
        record_build(flow, "build", "fingerprint")
