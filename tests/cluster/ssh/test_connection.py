"""Commands over a connection: limits on their output and time, how they end, and errors."""

from __future__ import annotations

import errno
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import paramiko
import pytest

from dora_cluster.connection import sudo_problem
from dora_cluster.errors import ConnectionLost, RemoteCommandFailed, RemoteTimeout, Unreachable
from dora_cluster.ssh.connection import SshConnection, connect
from dora_config.cluster.models import Machine

MEGABYTE = 1 << 20


class PrintingCommand:
    """A command that prints a megabyte on stdout and half a line on stderr; a fake channel."""

    code = 3

    def __init__(self) -> None:
        self.sent = 0
        self.command = ""
        self._rest = {"out": MEGABYTE, "err": len(b"half a line")}
        self.closed = threading.Event()

    def exec_command(self, command: str) -> None:
        self.command = command

    def sendall(self, data: bytes) -> None:
        self.sent += len(data)

    def shutdown_write(self) -> None: ...

    def recv(self, size: int) -> bytes:
        size = min(size, self._rest["out"], MEGABYTE // 64)
        self._rest["out"] -= size
        return bytes([self._rest["out"] % 64 + 32]) * size

    def recv_stderr(self, size: int) -> bytes:
        size = min(size, self._rest["err"])
        self._rest["err"] -= size
        return b"half a line"[:size]

    def recv_exit_status(self) -> int:
        return self.code

    def close(self) -> None:
        self.closed.set()


class FakeTransport:
    def __init__(self, channel: PrintingCommand, broken: Exception | None = None) -> None:
        self.channel = channel
        self.saved_exception = broken

    def open_session(self, timeout: float) -> PrintingCommand:
        assert timeout > 0
        return self.channel

    def is_active(self) -> bool:
        return True  # the thread that sets the exception has not ended yet

    def get_exception(self) -> Exception | None:
        problem, self.saved_exception = self.saved_exception, None
        return problem


def link(channel: PrintingCommand, broken: Exception | None = None) -> SshConnection:
    transport = cast(paramiko.Transport, FakeTransport(channel, broken))
    return SshConnection("robot", transport, ExitStack())


def test_only_the_end_of_output_with_a_listener_is_kept() -> None:
    assert len(link(PrintingCommand()).run(["print"]).stdout) == MEGABYTE
    taken: list[bytes] = []
    done = link(PrintingCommand()).run(["print"], on_output=taken.append)
    assert sum(map(len, taken)) == MEGABYTE
    assert len(done.stdout) == 1 << 16
    assert done.stdout.encode() == b"".join(taken)[-len(done.stdout) :]
    assert (done.code, done.stderr) == (3, "half a line")
    errors: list[bytes] = []
    link(PrintingCommand()).run(["print"], on_errors=errors.append)
    assert errors == [b"half a line"]


def test_input_and_words_are_sent() -> None:
    channel = PrintingCommand()
    link(channel).run(["a b", "$x", "it's"], stdin=bytes(MEGABYTE))
    assert channel.sent == MEGABYTE
    assert channel.command == """'a b' '$x' 'it'"'"'s'"""


class LeftOutput(PrintingCommand):
    """A command that has ended, and whose output another process keeps open."""

    def recv(self, size: int) -> bytes:
        if self._rest["out"]:
            self._rest["out"] = 0
            return b"started\n"
        assert self.closed.wait(30)
        return b""


def test_time_limit_includes_processes_in_the_background() -> None:
    done = link(LeftOutput()).run(["sh", "-c", "sleep 9999 &"], timeout=0.2)
    assert (done.code, done.stdout) == (3, "started\n")


class WaitingCommand(PrintingCommand):
    """A command that does not end until it is ended."""

    def recv_exit_status(self) -> int:
        assert self.closed.wait(30)
        return -1


def test_a_command_that_does_not_end_in_time() -> None:
    with pytest.raises(RemoteTimeout, match=r"`sleep 60` did not end in time and may still run"):
        link(WaitingCommand()).run(["sleep", "60"], timeout=0.1)


def test_a_listener_that_fails_ends_the_command() -> None:
    def fail(_: bytes) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "standard output")

    with pytest.raises(BrokenPipeError, match="standard output"):
        link(WaitingCommand()).run(["print"], on_output=fail)


class KilledCommand(PrintingCommand):
    """A command that was ended by a signal, before it had read its input."""

    code = -1

    def sendall(self, data: bytes) -> None:
        raise OSError("Socket is closed")


def test_the_signal_and_the_last_output_of_a_killed_command_are_reported() -> None:
    expected = "robot: `install` was ended by a signal:\n  half a line"
    with pytest.raises(RemoteCommandFailed, match=f"^{expected}$"):
        link(KilledCommand()).run(["install"], stdin=b"x")


def test_an_error_of_the_input_is_not_one_of_the_connection() -> None:
    def pieces() -> object:
        yield b"x"
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        link(PrintingCommand()).run(["cat"], stdin=pieces())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (EOFError(), "the connection broke: the other side closed it or did not answer"),
        (ConnectionResetError(104, "Connection reset by peer"), "broke: Connection reset by peer"),
    ],
)
def test_error_of_a_broken_connection(problem: Exception, sentence: str) -> None:
    with pytest.raises(ConnectionLost, match=f"{sentence}; check that machine"):
        link(KilledCommand(), problem).run(["install"])


def test_error_contains_the_output_of_a_failed_proxy_command(home: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir()
    command = "sh -c 'echo no route to the moon >&2; exit 3'"
    (folder / "config").write_text(f"Host far\n  ProxyCommand {command}\n")
    with pytest.raises(Unreachable) as refused:
        connect(Machine(id="rover", host="far"))
    message = str(refused.value)
    assert message.startswith(f"rover (far): its ProxyCommand `{command}` did not reach")
    assert message.endswith("\n  no route to the moon")


def test_errors_of_sudo_are_distinguished_from_those_of_the_command() -> None:
    assert sudo_problem("sudo: a password is required", "u") is not None
    assert sudo_problem("env: „sudo“: Datei oder Verzeichnis nicht gefunden", "u") is not None
    assert sudo_problem("systemctl: a password is required for x", "u") is None
    assert sudo_problem("mkdir: Permission denied", "u") is None
