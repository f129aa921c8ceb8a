"""A connection that broke is named in a sentence, whatever the library raised."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

import paramiko
import pytest

from dora_cli.ssh.transport import Transport


class Broken:
    """A transport whose connection has ended, but which is not inactive yet."""

    def __init__(self, problem: Exception | None) -> None:
        self.saved_exception = problem

    def is_active(self) -> bool:
        return True

    def get_exception(self) -> Exception | None:
        problem, self.saved_exception = self.saved_exception, None
        return problem


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (EOFError(), "the connection broke: the other side closed it"),
        (ConnectionResetError(104, "Connection reset by peer"), "broke: Connection reset by peer"),
        (None, "the connection broke: it was closed from the other side"),
    ],
)
def test_why_a_connection_broke(problem: Exception | None, sentence: str) -> None:
    link = Transport("robot", cast(paramiko.Transport, Broken(problem)), ExitStack())
    assert link.broken == (problem is not None)
    assert str(link.lost()).endswith(sentence)
    assert str(link.lost(EOFError())).endswith("the connection broke: the other side closed it")
