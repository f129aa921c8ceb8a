"""The link's end of the socketpair to its runner."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dora_daemon.link.errors import LinkProcessError
from dora_daemon.link.io.runner_connection import RunnerConnection
from dora_daemon.link.protocol import messages
from dora_daemon.link.protocol.messages import (
    VERSION,
    Configure,
    Finish,
    LineBuffer,
    Note,
    ToRunner,
    decode_for_runner,
    encode,
)

CONFIGURE = Configure(
    dataflow_id="d", network="n", machine="m", run_id="r", listen_host="h", first_port=1,
    last_port=2, credentials=None,
)  # fmt: skip


class Ends:
    """A connection and the runner's end of it."""

    def __init__(self) -> None:
        self.runner, self._link = socket.socketpair()
        self.connection = RunnerConnection(self._link)

    def received(self) -> list[ToRunner]:
        return [decode_for_runner(line) for line in LineBuffer().feed(self.runner.recv(65536))]

    def close(self) -> None:
        self.runner.close()
        self._link.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def test_messages_that_follow_the_configuration_at_once_are_kept(ends: Ends) -> None:
    ends.runner.sendall(encode(CONFIGURE) + encode(Finish(seconds=1)))
    assert ends.connection.configuration() == CONFIGURE
    assert ends.connection.early == [Finish(seconds=1)]


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (encode(Finish(seconds=1)), "expected Configure"),
        (encode(CONFIGURE.model_copy(update={"version": VERSION + 1})), "was upgraded"),
        (b"{}\n", "malformed message of the runner"),
        (b'{"kind":"configure"}\n', "malformed message of the runner"),
    ],
)
def test_another_first_message_is_refused(ends: Ends, first: bytes, problem: str) -> None:
    ends.runner.sendall(first)
    with pytest.raises(LinkProcessError, match=problem):
        ends.connection.configuration()


def test_a_runner_that_ends_is_noticed(ends: Ends) -> None:
    ends.runner.shutdown(socket.SHUT_RDWR)
    assert ends.connection.receive() is None
    ends.connection.send(Note(level="info", message="ignored"))


def test_notes_that_begin_alike_are_sent_once_in_a_while(ends: Ends) -> None:
    for number in range(5):
        ends.connection.note("x" * 80 + str(number))
    ends.connection.note("another")
    texts = [message.message for message in ends.received() if isinstance(message, Note)]
    assert texts == ["x" * 80 + "0", "another"]


def test_a_line_that_never_ends_is_refused(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_LINE", 1000)
    ends.runner.sendall(b"x" * 2000)
    with pytest.raises(LinkProcessError, match="line of more than 1000 bytes"):
        ends.connection.receive()


@pytest.mark.parametrize("line", [b'{"kind":"finish"}', b'{"kind":"later"}', b"nonsense"])
def test_a_malformed_message_is_refused(ends: Ends, line: bytes) -> None:
    ends.runner.sendall(line + b"\n")
    with pytest.raises(LinkProcessError, match="malformed message of the runner"):
        ends.connection.receive()
