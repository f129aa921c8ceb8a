"""Last lines of stderr that are kept for the report of a failure."""

from __future__ import annotations

from pathlib import Path

from support.runner.nodes import node

from dora_config.protocol.run_plan import LogSettings
from dora_daemon.runner.logs.log_files import LogFile
from dora_daemon.runner.logs.logs import TAIL_LINES, NodeLog


def test_the_last_lines_of_stderr_are_kept_without_their_ends(tmp_path: Path) -> None:
    log = NodeLog(
        node("a"),
        LogFile(tmp_path / "log"),
        settings=LogSettings(),
        upward=lambda entry: None,
        send=lambda output, text: None,
        to_subscribers=lambda entry: None,
        as_text=lambda entry: "",
        warn=lambda text: None,
        gate=None,
    )
    log.take("stderr", ["x" * 1_000_000] * 3 + ["short"] * (TAIL_LINES - 1))
    log.close()
    assert list(log.tail) == ["x" * 2000] + ["short"] * (TAIL_LINES - 1)
    assert len((tmp_path / "log").read_text()) > 3_000_000
