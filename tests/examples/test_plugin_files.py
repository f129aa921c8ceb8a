"""Dataflow files of examples that need plug-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.dataflow.loader import load_dataflow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["ros2", "two_cameras"])
def test_they_load_without_a_warning(name: str) -> None:
    loaded = load_dataflow(EXAMPLES / name / "dataflow.yml", check_paths=True)
    assert loaded.warnings == ()
