"""Watched messages are shown one to a line."""

from __future__ import annotations

import json

from dora_cli.topics.stream import message_row


def test_a_message_is_a_row_that_shows_how_it_was_shortened() -> None:
    message = {"timestamp": 1, "name": "a/x", "data": ["ü", 1.5], "metadata": {"k": 1}}
    assert message_row(json.dumps(message)) == 'a/x\t data=["ü",1.5] metadata={"k":1}'
    message["shortened"] = {"elements": 9, "type": "int8"}
    assert message_row(json.dumps(message)).endswith(" (shortened: elements 9, type int8)")


def test_an_image_is_shown_by_its_size() -> None:
    """As metadata or fields; detections have the metadata of their image."""
    size = {"width": 2, "height": 1, "encoding": "rgb8"}
    flat = {"name": "a/x", "data": [0, 0], "metadata": size}
    assert message_row(json.dumps(flat)).startswith('a/x\t data="<2 x 1 rgb8>" metadata={"width":2')
    struct = {"name": "a/x", "data": [{**size, "data": [1, 2]}], "metadata": {}}
    assert message_row(json.dumps(struct)) == 'a/x\t data="<2 x 1 rgb8>" metadata={}'
    for data in ([0.5, 1.0], ["a"], [{"label": "a"}], []):
        boxes = {"name": "a/x", "data": data, "metadata": size}
        assert "<2 x 1" not in message_row(json.dumps(boxes))
