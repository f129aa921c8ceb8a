"""Streams the words of an answer; is interrupted, and starts another one with a flush."""

import pyarrow as pa

from dora import Node

LONG_ANSWER = [f"word-{number}" for number in range(40)]
CORRECTION = ["sorry,", "shorter:", "yes."]

node = Node()


def stream(words: list[str], segment: int, *, flush: bool) -> None:
    """Send the words of one segment; `flush` with the first one clears what is still queued."""
    for seq, word in enumerate(words):
        metadata = {
            "session_id": "demo",
            "segment_id": segment,
            "seq": seq,
            "fin": seq == len(words) - 1,
            "flush": flush and seq == 0,
        }
        node.send_output("token", pa.array([word]), metadata)


stream(LONG_ANSWER, segment=1, flush=False)
for event in node:
    if event["type"] == "INPUT":  # the speaker has begun: interrupt it
        stream(CORRECTION, segment=2, flush=True)
        break
