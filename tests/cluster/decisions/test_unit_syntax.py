"""Quoting in systemd units."""

from __future__ import annotations

from dora_cluster.decisions.units import escape_specifiers, exec_line, quote


def test_systemd_expands_nothing_in_a_command() -> None:
    assert exec_line(["/opt/a b/dora", "100%", "$HOME", 'q"\\']) == (
        '"/opt/a b/dora" "100%%" "$$HOME" "q\\"\\\\"'
    )
    assert exec_line(["/usr/bin/dora", "--port=7"]) == "/usr/bin/dora --port=7"


def test_quoted_text_keeps_variables() -> None:
    assert quote('$HOME "100%"') == '"$HOME \\"100%%\\""'
    assert escape_specifiers("100%") == "100%%"
