"""The specification of a dataflow file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_cli.coordinator.start_spec import NotUtf8, make_spec
from dora_config.dataflow.loader import load_dataflow
from dora_daemon.build.session_file import fingerprint, record_build


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xffd")
    folder.mkdir()
    file = folder / "dataflow.yml"
    file.write_text("nodes: [{id: a, path: a.py}]")
    (folder / "a.py").write_text("")
    with pytest.raises(NotUtf8, match="is not valid UTF-8"):
        make_spec(load_dataflow(file))


def test_a_value_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    file = tmp_path / "dataflow.yml"
    file.write_text("nodes: [{id: a, path: a.py}]")
    with pytest.raises(NotUtf8, match="value of --env is not valid UTF-8"):
        make_spec(load_dataflow(file), env_overrides={"A": os.fsdecode(b"\xff")})


BUILD = "01234567-89ab-4def-8123-456789abcdef"


def test_a_linked_file_starts_in_the_folder_of_the_link(tmp_path: Path) -> None:
    for name in ("real", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "real/file.yml").write_text("nodes: [{id: a, path: a.py, build: 'true'}]")
    link = tmp_path / "folder/flow.yml"
    link.symlink_to("../real/file.yml")
    loaded = load_dataflow(link)
    record_build(link, BUILD, fingerprint(loaded.resolved, uv=False))
    spec = make_spec(loaded)
    assert spec.origin.directory == str(tmp_path / "folder")
    assert spec.build_id == BUILD
