"""What a terminal gets of text of other participants."""

from __future__ import annotations

from dora_config.terminal import visible
from dora_ros2.commands import escaped


def test_foreign_text_is_escaped_as_by_dora_itself() -> None:
    """The module cannot import dora-config; it passes no colours."""
    text = "".join(map(chr, range(0x110000)))
    assert escaped(text) == visible(text)
