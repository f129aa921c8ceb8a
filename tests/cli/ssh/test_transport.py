"""The error of a broken connection, for each exception of the library."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

import paramiko
import pytest

from dora_cli.ssh.transport import Transport


class Broken:
    """A transport whose thread has ended, but which is still active."""

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
        (None, "the connection broke: the other side closed it"),
    ],
)
def test_error_of_a_broken_connection(problem: Exception | None, sentence: str) -> None:
    link = Transport("robot", cast(paramiko.Transport, Broken(problem)), ExitStack())
    assert link.broken == (problem is not None)
    assert f"{sentence}; check that machine" in str(link.lost())
    assert "the connection broke: the other side closed it;" in str(link.lost(EOFError()))
