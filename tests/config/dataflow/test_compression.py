"""Codecs of `compress:`: what is missing on a machine, and where that is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dora_config.dataflow import compression
from dora_config.dataflow.compression import library_problem
from dora_config.dataflow.loader import load_dataflow

FLOW = """\
nodes:
  - id: camera
    path: camera.py
    outputs: [image]
  - id: plot
    path: plot.py
    inputs:
      image: {source: camera/image, compress: h264}
"""


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "find_spec", lambda _: None)


@pytest.mark.usefixtures("without_av")
def test_a_missing_library_is_named_with_its_command() -> None:
    assert library_problem("jpeg") is None
    problem = library_problem("h264")
    assert problem is not None
    assert "h264 needs the library av on the machines at both ends" in problem
    assert "pip install" in problem
    assert "av" in problem.rpartition("install")[2]


@pytest.mark.usefixtures("without_av")
def test_a_machine_of_a_cluster_gets_the_library_by_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its installation has no pip, and is replaced as a whole."""
    (tmp_path / "bundle.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    problem = library_problem("h264")
    assert problem is not None
    assert problem.endswith("and run `dora cluster upgrade` there")
    assert "pip" not in problem


@pytest.mark.usefixtures("without_av")
def test_validate_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "dataflow.yml"
    path.write_text(FLOW)
    warnings = [str(problem) for problem in load_dataflow(path).warnings]
    assert any("dataflow.yml:8:" in one and "h264 needs the library av" in one for one in warnings)
