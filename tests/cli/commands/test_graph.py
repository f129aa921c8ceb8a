"""`dora graph --mermaid`."""

from __future__ import annotations

from pathlib import Path

from support.command_line import Dora

from dora_config.dataflow.loader import load_dataflow
from dora_config.render.mermaid import mermaid_graph


def test_mermaid(dora: Dora, hello: Path) -> None:
    loaded = load_dataflow(hello)
    assert (
        dora("graph", "--mermaid", hello.name).out == mermaid_graph(loaded.resolved).rstrip() + "\n"
    )


def test_mermaid_cannot_be_opened(dora: Dora, hello: Path) -> None:
    assert dora("graph", "--open", "--mermaid", hello.name).code == 2
