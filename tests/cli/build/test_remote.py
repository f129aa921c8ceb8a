"""Progress of builds on daemons: plain lines, or redrawn ones on a terminal."""

from __future__ import annotations

import re
import sys

import pytest

from dora_cli.build.remote import RemoteBuildProgress
from dora_config.protocol.builds import BuildProgress, BuildTriggered, NodeBuildEvent

FRAMES = (
    BuildTriggered(build_id="b1"),
    BuildProgress(
        build_id="b1",
        daemon="robot",
        events=(
            NodeBuildEvent(node="camera", what="step", text="make"),
            NodeBuildEvent(node="camera", what="output", text="compiling"),
        ),
    ),
    BuildProgress(
        build_id="b1",
        daemon="robot",
        dropped=7,
        events=(NodeBuildEvent(node="camera", what="built", seconds=2.0),),
    ),
    BuildProgress(
        build_id="b1",
        daemon="server",
        events=(
            NodeBuildEvent(node="plot", what="step", text="pip install x"),
            NodeBuildEvent(node="plot", what="failed", text="exit code 1"),
        ),
    ),
)


def test_each_event_is_a_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RemoteBuildProgress()
    for frame in FRAMES:
        progress.show(frame)
    assert capsys.readouterr().out.splitlines() == [
        "dataflow build triggered: b1",
        "robot/camera: make",
        "robot/camera:   compiling",
        "robot: (7 lines left out: too many at once)",
        "robot/camera: ready after 2.0 s",
        "server/plot: pip install x",
        "server/plot: failed",
    ]


def test_a_terminal_shows_one_line_for_each_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = RemoteBuildProgress()
    for frame in FRAMES:
        progress.show(frame)
    last = re.split(r"\x1b\[\d*A|\x1b\[J", capsys.readouterr().out)[-2]
    assert re.sub(r"\r|\x1b\[K", "", last).splitlines() == [
        "server/plot: pip install x",
        "robot/camera  ready    after 2.0 s",
        "server/plot   failed",
    ]
