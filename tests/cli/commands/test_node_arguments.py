"""Arguments of `dora node connect` and `disconnect`."""

from __future__ import annotations

import pytest
import typer

from dora_cli.commands.node import edge


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("camera/image", ("camera", "image")),
        ("camera/op/image", ("camera", "op/image")),
        ("dora/timer/hz/10", ("dora", "timer/millis/100")),
        ("dora/logs", ("dora", "logs")),
        ("dora/logs/WARN/camera", ("dora", "logs/warn/camera")),
    ],
)
def test_sources_of_a_dataflow_file(source: str, expected: tuple[str, str]) -> None:
    assert tuple(edge(source, "plot/in").values()) == (*expected, "plot", "in")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("camera", "plot/in", "input must start with `<source>/`, found 'camera'"),
        ("dora/timer/hours/1", "plot/in", "unknown timer unit 'hours'"),
        ("dora/image", "plot/in", "expected dora/timer/<unit>/<value> or dora/logs"),
        ("camera/image", "plot", '"plot": expected NODE/INPUT, such as plot/image'),
        ("camera/image", "dora/in", "node id 'dora' is reserved"),
    ],
)
def test_invalid_arguments(source: str, target: str, message: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        edge(source, target)
    assert message in raised.value.message
