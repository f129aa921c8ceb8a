"""What the processes of inspectors and recorders have in common."""

from __future__ import annotations

import os
import signal

from dora_config.protocol.envelope import Message

NICENESS = 5
"""Nodes have a higher priority."""


def prepare() -> None:
    """Lower the priority and ignore Ctrl-C, which ends the starting process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)


def write_line(message: Message) -> None:
    """Write a message as a line of JSON to standard output. Raises BrokenPipeError."""
    line = message.model_dump_json().encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]
