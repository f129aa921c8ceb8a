"""Folders beside a dataflow file, and setuptools beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.dora import run_dora

from dora_daemon.build.git_sources import repository_dir
from dora_daemon.out_dir import GIT_DIR, OUT_DIR, folder, log_dir

NODE = """
from dora import Node

with Node() as node:
    node.send_output("x", b"1")
"""


def test_they_are_hidden_in_a_python_project(tmp_path: Path) -> None:
    assert folder(tmp_path, OUT_DIR) == tmp_path / "out"
    assert repository_dir(tmp_path, "https://host/a").parts[-3:] == ("git", "host", "a")
    for name in ("pyproject.toml", "setup.py", "setup.cfg"):
        (tmp_path / name).touch()
        assert log_dir(tmp_path, "id") == tmp_path / ".dora" / "out" / "id"
        assert folder(tmp_path, GIT_DIR) == tmp_path / ".dora" / "git"
        (tmp_path / name).unlink()
    assert not [*tmp_path.iterdir()]


@pytest.mark.integration
def test_a_run_leaves_no_package_for_setuptools_in_a_flat_project(tmp_path: Path) -> None:
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk" / "__init__.py").write_text(NODE)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "pk"\nversion = "1"\n')
    (tmp_path / "flow.yml").write_text(
        "nodes: [{id: a, path: pk/__init__.py, build: 'true', outputs: [x]}]"
    )
    run_dora("run", "flow.yml", cwd=tmp_path).succeeded()
    logs = run_dora("logs", "--local", cwd=tmp_path).succeeded()
    assert "no logs" not in logs.stdout + logs.stderr
    assert [*(tmp_path / ".dora" / "out").glob("*/log_a.jsonl")]
    # setuptools takes each folder whose name is an identifier for a package
    assert [
        path.name for path in tmp_path.iterdir() if path.is_dir() and path.name.isidentifier()
    ] == ["pk"]
