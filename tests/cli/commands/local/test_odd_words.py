"""What is no address, no JSON and no time on the command line is answered, and nothing is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import Dora

DEEP = "[" * 100_000


@pytest.mark.parametrize("host", ["x" * 300, "a..b", "\udcff"], ids=["long", "dots", "byte"])
def test_what_is_no_address_of_a_coordinator(dora: Dora, host: str) -> None:
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
def test_what_cannot_be_sent(dora: Dora, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    shown = dora(*words)
    assert shown.code == 2
    assert "Traceback" not in shown.err
    assert any(says in shown.err for says in ("JSON", "at most one hour"))
