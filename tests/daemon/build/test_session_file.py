"""The session file keeps its id, and forgets the last build when what is built has changed."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from dora_config import ResolvedDataflow
from dora_daemon.build.session_file import (
    BuiltNode,
    fingerprint,
    read_session,
    session_file_path,
    write_session,
)
from dora_daemon.out_dir import prepare_out_dir


def _dataflow(build: str) -> ResolvedDataflow:
    return ResolvedDataflow.model_validate(
        {"nodes": [{"id": "n", "path": "n.py", "build": [build]}]}
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    nodes = (
        BuiltNode("a", tmp_path, tmp_path / "bin" / "python", "c" * 40),
        BuiltNode("b", tmp_path / "x"),
    )
    session = read_session(file).after_build(str(uuid.uuid4()), "1234", nodes)
    write_session(file, session)
    assert read_session(file) == session
    assert session_file_path(file) == tmp_path / "out" / "flow.dora-session.yaml"
    assert (tmp_path / "out" / ".gitignore").read_text() == "*\n"


def test_the_id_stays_when_the_build_inputs_change(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    before = fingerprint(_dataflow("make"), uv=False)
    session = read_session(file).after_build(str(uuid.uuid4()), before, ())
    write_session(file, session)
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
