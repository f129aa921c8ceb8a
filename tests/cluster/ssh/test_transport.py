"""The error of a broken connection, for each exception of the library; silent connections."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import cast

import paramiko
import pytest
from support.waiting import wait_until

from dora_cluster.ssh.transport import Transport, close_if_silent


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


class Answering:
    """A transport whose other side answers some requests, and then none."""

    def __init__(self, answers: int) -> None:
        self.packetizer = self
        self.received = 0
        self.saved_exception: Exception | None = None
        self.requests = 0
        self.answers = answers
        self.last_request: threading.Thread | None = None
        self._closed = threading.Event()

    def is_active(self) -> bool:
        return not self._closed.is_set()

    def global_request(self, _kind: str) -> None:
        self.last_request = threading.current_thread()
        self.requests += 1
        if self.requests > self.answers:
            assert self._closed.wait(30)
        else:
            self.received += 1

    def close(self) -> None:
        self._closed.set()


class Intervals:
    """Intervals that end when the request of each was sent, and answered if it ever is."""

    def __init__(self, transport: Answering, count: int) -> None:
        self._transport = transport
        self._left = count
        self._requests = 0

    def wait(self, _interval: float) -> bool:
        link, sent = self._transport, self._requests
        wait_until(lambda: link.requests >= sent, what="the request")
        wait_until(lambda: link.received >= min(sent, link.answers), what="its answer")
        if sent <= link.answers and link.last_request is not None:
            link.last_request.join()
        self._requests = min(sent + 1, link.answers + 1)
        self._left -= 1
        return self._left < 0


def watch(answers: int, intervals: int) -> Answering:
    transport = Answering(answers)
    ended = Intervals(transport, intervals)
    close_if_silent(cast(paramiko.Transport, transport), 10.0, cast(threading.Event, ended))
    return transport


def test_a_silent_connection_is_closed() -> None:
    transport = watch(answers=2, intervals=100)
    assert not transport.is_active()
    assert transport.requests == 3, "one at once"
    assert str(transport.saved_exception) == "no answer within 30 s"


def test_a_connection_with_answers_stays_open() -> None:
    transport = watch(answers=20, intervals=20)
    assert transport.is_active()
    assert transport.requests == 20
