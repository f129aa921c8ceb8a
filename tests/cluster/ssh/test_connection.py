"""Limits on a command's output, and on the time for its input."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dora_cluster.ssh import transport
from dora_cluster.ssh.connection import Connection, Target, connect
from dora_cluster.ssh.errors import RemoteCommandFailed, Unreachable
from dora_cluster.ssh.transport import CommandChannel, Transport

MEGABYTE = 1 << 20


class PrintingCommand:
    """A command that prints a megabyte on stdout and half a line on stderr; and its transport."""

    broken = False

    def execute(self, _command: str) -> PrintingCommand:
        return self

    def write(self, data: bytes, timeout: float) -> None:
        assert not data
        assert timeout > 0

    def end_input(self) -> None: ...

    def read(self, *, errors: bool) -> Iterator[bytes]:
        if errors:
            yield b"half a line"
        else:
            yield from [bytes([number]) * (MEGABYTE // 64) for number in range(64)]

    def wait(self, timeout: float) -> int:
        assert timeout > 0
        return 3

    def close(self) -> None: ...


def test_only_the_end_of_output_with_a_listener_is_kept() -> None:
    link = Connection("robot", cast(Transport, PrintingCommand()))
    assert len(link.run(["print"]).stdout) == MEGABYTE
    taken: list[bytes] = []
    done = link.run(["print"], on_output=taken.append)
    assert sum(map(len, taken)) == MEGABYTE
    assert 1 << 16 <= len(done.stdout) < 1 << 17
    assert done.stdout.encode() == b"".join(taken)[-len(done.stdout) :]
    assert (done.code, done.stderr) == (3, "half a line")
    errors: list[bytes] = []
    link.run(["print"], on_errors=errors.append)
    assert errors == [b"half a line"]


class LeftOutput(PrintingCommand):
    """A command that has ended, and whose output another process keeps open."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def execute(self, _command: str) -> LeftOutput:
        return self

    def read(self, *, errors: bool) -> Iterator[bytes]:
        yield b"started\n"
        assert self.closed.wait(30)

    def close(self) -> None:
        self.closed.set()


def test_time_limit_includes_processes_in_the_background() -> None:
    link = Connection("robot", cast(Transport, LeftOutput()))
    done = link.run(["sh", "-c", "sleep 9999 &"], timeout=1.0)
    assert (done.code, done.stdout) == (3, "started\n")


class WaitingCommand(PrintingCommand):
    """A command that waits for its output to be read, until it is ended."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def execute(self, _command: str) -> WaitingCommand:
        return self

    def wait(self, timeout: float) -> int:
        assert self.closed.wait(30)
        return -1

    def close(self) -> None:
        self.closed.set()


def test_a_listener_that_fails_ends_the_command() -> None:
    def fail(_: bytes) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "standard output")

    link = Connection("robot", cast(Transport, WaitingCommand()))
    with pytest.raises(BrokenPipeError, match="standard output"):
        link.run(["print"], on_output=fail)


class KilledCommand(PrintingCommand):
    """A command that prints an error and is ended by a signal."""

    def execute(self, _command: str) -> KilledCommand:
        return self

    def wait(self, timeout: float) -> int:
        return -1


def test_the_signal_and_the_last_output_of_a_killed_command_are_reported() -> None:
    link = Connection("robot", cast(Transport, KilledCommand()))
    expected = "robot: `install` was ended by a signal:\n  half a line"
    with pytest.raises(RemoteCommandFailed, match=f"^{expected}$"):
        link.run(["install"])


class SlowReader:
    """A channel whose other end reads a thousand bytes a second, with a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limits: list[float] = []
        self.taken = 0

    def monotonic(self) -> float:
        return self.now

    def settimeout(self, limit: float) -> None:
        self.limits.append(limit)

    def send(self, data: bytes) -> int:
        sent = min(len(data), 1000)
        self.now += sent / 1000
        self.taken += sent
        return sent

    def recv(self, _size: int) -> bytes:
        return b""


def test_time_limit_is_for_the_whole_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SlowReader()
    monkeypatch.setattr(transport, "time", reader)
    channel = CommandChannel(cast(Any, reader))
    channel.write(bytes(50_000), 60.0)
    assert reader.taken == 50_000
    with pytest.raises(TimeoutError):
        channel.write(bytes(MEGABYTE), 60.0)
    assert reader.now == pytest.approx(110.0, abs=1.0)
    before = list(reader.limits)
    assert list(channel.read()) == []
    assert reader.limits == before, "the limit is for the writer"


def test_error_contains_the_output_of_a_failed_proxy_command(home: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir()
    command = "sh -c 'echo no route to the moon >&2; exit 3'"
    (folder / "config").write_text(f"Host far\n  ProxyCommand {command}\n")
    with pytest.raises(Unreachable) as refused:
        connect(Target("far", label="rover"))
    message = str(refused.value)
    assert message.startswith(f"rover (far): its ProxyCommand `{command}` did not reach")
    assert message.endswith("\n  no route to the moon")
