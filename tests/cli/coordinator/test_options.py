"""Which options and variables name a coordinator."""

from __future__ import annotations

import pytest

from dora_cli.coordinator.options import is_named


@pytest.mark.parametrize(
    ("addr", "port", "variable", "named"),
    [
        (None, None, None, False),
        (None, None, "", False),
        (None, None, "192.0.2.1", True),
        ("192.0.2.1", None, None, True),
        (None, 7000, None, True),
    ],
)
def test_an_option_or_the_variable_names_a_coordinator(
    monkeypatch: pytest.MonkeyPatch,
    addr: str | None,
    port: int | None,
    variable: str | None,
    named: bool,
) -> None:
    monkeypatch.delenv("DORA_COORDINATOR_ADDR", raising=False)
    if variable is not None:
        monkeypatch.setenv("DORA_COORDINATOR_ADDR", variable)
    assert is_named(addr, port) == named
