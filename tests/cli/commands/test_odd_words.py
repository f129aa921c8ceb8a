"""Malformed addresses, JSON and times are usage errors before any request is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Dora

DEEP = "[" * 100_000


@pytest.mark.parametrize("host", ["x" * 300, "a..b", "\udcff"], ids=["long", "dots", "byte"])
def test_malformed_coordinator_addresses(dora: Dora, host: str) -> None:
    shown = dora("list", "--coordinator-addr", host)
    assert shown.code == 1
    assert "cannot connect to the coordinator" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ("param", "set", "node", "key", DEEP),
        ("topic", "pub", "node/output", DEEP),
        ("topic", "pub", "node/output", "[" * 300 + "]" * 300),
        ("topic", "pub", "node/output", r'"\ud800"'),
        ("topic", "pub", "node/output", "--file", "bytes"),
        ("topic", "hz", "--window", "2h"),
    ],
    ids=lambda words: " ".join(word[:12] for word in words),
)
def test_malformed_messages_and_windows(dora: Dora, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    shown = dora(*words)
    assert shown.code == 2
    assert "Traceback" not in shown.err
    assert any(text in shown.err for text in ("JSON", "at most one hour"))
