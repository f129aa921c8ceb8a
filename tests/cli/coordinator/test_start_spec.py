"""From a dataflow file to what the coordinator is asked to start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_cli.coordinator.start_spec import PathIsNoText, make_spec
from dora_config import load_dataflow


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xffd")
    folder.mkdir()
    file = folder / "dataflow.yml"
    file.write_text("nodes: [{id: a, path: a.py}]")
    (folder / "a.py").write_text("")
    with pytest.raises(PathIsNoText, match="is no UTF-8 text"):
        make_spec(load_dataflow(file))
