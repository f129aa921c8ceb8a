"""Watched messages are shown one to a line."""

from __future__ import annotations

import json

from dora_cli.topics.stream import message_row


def test_a_message_is_a_row_that_shows_how_it_was_shortened() -> None:
    message = {"timestamp": 1, "name": "a/x", "data": ["ü", 1.5], "metadata": {"k": 1}}
    assert message_row(json.dumps(message)) == 'a/x\t data=["ü",1.5] metadata={"k":1}'
    message["shortened"] = {"elements": 9, "type": "int8"}
    assert message_row(json.dumps(message)).endswith(" (shortened: elements 9, type int8)")
