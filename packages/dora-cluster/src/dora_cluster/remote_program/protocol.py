"""Requests and replies of the program on a machine; used on both sides of the connection.

A request is a line of the program's input, a reply a line of its output. Both are JSON:

    {"protocol": 1, "command": "daemon.tail", "arguments": {"name": "robot", "lines": 20}}
    {"protocol": 1, "result": {"lines": [], "path": "/home/pi/.local/state/dora/log/..."}}
    {"protocol": 1, "problem": "the daemon still runs"}

Other lines are output of the account's shell. Nothing of a request is on a command line, which
other users of the machine can read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

VERSION = 1
"""Version of requests and answers of the remote program."""


class RemoteProblem(Exception):
    """A message for the user."""


def encode_request(command: str, arguments: Mapping[str, Any]) -> bytes:
    """Return a request as a line."""
    return _line({"command": command, "arguments": arguments})


def decode_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return command and arguments; raises RemoteProblem for another version."""
    request = _checked(json.loads(line))
    return request["command"], request["arguments"]


def encode_result(result: Mapping[str, Any]) -> bytes:
    """Return a reply as a line."""
    return _line({"result": result})


def encode_problem(text: str) -> bytes:
    """Return the reply for a request that failed."""
    return _line({"problem": text})


def send_result(result: Mapping[str, Any]) -> None:
    """Write a reply to standard output."""
    os.write(1, encode_result(result))


def send_problem(text: str) -> None:
    """Write the reply for a request that failed to standard output."""
    os.write(1, encode_problem(text))


def decode_reply(line: str | bytes) -> dict[str, Any]:
    """Return the result; raises RemoteProblem, and ValueError for a line that is not a reply."""
    reply = json.loads(line)
    if not isinstance(reply, dict) or "protocol" not in reply:
        raise ValueError("not a reply")
    if "problem" in _checked(reply):
        raise RemoteProblem(reply["problem"])
    return dict(reply["result"])


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps({"protocol": VERSION, **content}).encode() + b"\n"


def _checked(message: dict[str, Any]) -> dict[str, Any]:
    if message["protocol"] != VERSION:
        raise RemoteProblem(
            f"another version of dora runs on that machine: its protocol is {message['protocol']}, "
            f"that of this version is {VERSION}; use the same version everywhere"
        )
    return message
