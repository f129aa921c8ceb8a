"""A machine that commands are run on and files are sent to; blocking, for threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dora_cli.ssh.commands import command_line, shown, sudo_problem
from dora_cli.ssh.errors import RemoteCommandFailed, RemoteTimeout, SudoUnavailable
from dora_cli.ssh.transport import Channel, Transport, open_transport

SILENCE = 30.0
"""Seconds after which a network that carries nothing counts as broken."""
_CHUNK = 1 << 18
_WRITE = """\
umask 077
cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1" || { rm -f "$1.new"; exit 1; }"""
_READ = 'if [ -e "$1" ]; then cat "$1"; else exit 44; fi'
_APPEND = 'cat >>"$1"'
_NO_SUCH_FILE = 44

_KEPT = 1 << 16

Progress = Callable[[int], None]
Listener = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to connect to. ``None``: what `~/.ssh/config` says, or the usual."""

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    label: str | None = None
    """What sentences call it, beside the address."""

    @property
    def name(self) -> str:
        address = f"{self.user}@{self.host}" if self.user else self.host
        return f"{self.label} ({address})" if self.label else address


@dataclass(frozen=True, slots=True)
class Finished:
    """How a remote command ended; of a stream that a listener took, the last 64 KiB or more."""

    code: int
    stdout: str
    stderr: str


def connect(target: Target, *, silence: float | None = None) -> Connection:
    """Log in; raises SshError with a sentence that begins with the machine's name.

    ``silence``: seconds after which a network that carries nothing is broken (SILENCE).
    """
    limit = SILENCE if silence is None else silence
    transport = open_transport(
        target.name, target.host, target.user, target.port, target.identity_file, limit
    )
    return Connection(target.name, transport)


class Connection:
    """A context manager; several threads may use it at once."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self._transport = transport
        self._is_root: bool | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # ------------------------------------------------------------------------ commands

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = False,
        timeout: float = 60.0,
        on_output: Listener | None = None,
        on_errors: Listener | None = None,
    ) -> Finished:
        """Run a command without a terminal, whatever its exit code.

        ``on_output`` and ``on_errors`` get stdout and stderr as they come, each from a thread of
        its own. Raises RemoteTimeout, ConnectionLost and SudoUnavailable.
        """
        listeners = (on_output, on_errors)
        return self._run(argv, iter([stdin]), sudo=sudo, timeout=timeout, listeners=listeners)

    def converse(
        self,
        argv: Sequence[str],
        pieces: Iterator[bytes],
        *,
        timeout: float,
        on_output: Listener,
    ) -> Finished:
        """``run`` for a command whose input comes piece by piece while it runs."""
        return self._run(argv, pieces, sudo=False, timeout=timeout, listeners=(on_output, None))

    def check(
        self, argv: Sequence[str], *, stdin: bytes = b"", sudo: bool = False, timeout: float = 60.0
    ) -> str:
        """What the command printed; raises RemoteCommandFailed unless its exit code is 0."""
        done = self.run(argv, stdin=stdin, sudo=sudo, timeout=timeout)
        if done.code != 0:
            raise self._failed(argv, done)
        return done.stdout

    def script(
        self,
        text: str,
        *arguments: str,
        stdin: bytes = b"",
        sudo: bool = False,
        timeout: float = 60.0,
    ) -> str:
        """``check`` for a script of the POSIX shell, whatever the login shell is."""
        words = ["sh", "-c", text, "sh", *arguments]
        return self.check(words, stdin=stdin, sudo=sudo, timeout=timeout)

    # ------------------------------------------------------------------------ files

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        sudo: bool = False,
        progress: Progress | None = None,
        timeout: float = 3600.0,
    ) -> None:
        """Append ``source`` from ``offset`` on to ``target``; progress: bytes since ``offset``."""
        words = ["sh", "-c", _APPEND, "sh", target]
        pieces = _pieces(source, offset, progress)
        done = self._run(words, pieces, sudo=sudo, timeout=timeout)
        if done.code != 0:
            raise self._not_written(target, done)

    def write(self, target: str, content: bytes, *, mode: int = 0o644, sudo: bool = False) -> None:
        """Replace a small file as a whole; its folder must be there."""
        words = ["sh", "-c", _WRITE, "sh", target, f"{mode:o}"]
        done = self.run(words, stdin=content, sudo=sudo)
        if done.code != 0:
            raise self._not_written(target, done)

    def read(self, path: str, *, sudo: bool = False) -> bytes | None:
        """A small file, None when there is none."""
        words = ["sh", "-c", _READ, "sh", path]
        done = self.run(words, sudo=sudo)
        if done.code == _NO_SUCH_FILE:
            return None
        if done.code != 0:
            raise self._failed(["read", path], done)
        return done.stdout.encode("utf-8", "surrogateescape")

    # ------------------------------------------------------------------------ below

    def _needs_sudo(self) -> bool:
        if self._is_root is None:
            self._is_root = self.run(["id", "-u"]).stdout.strip() == "0"
        return not self._is_root

    def _run(
        self,
        argv: Sequence[str],
        pieces: Iterator[bytes],
        *,
        sudo: bool,
        timeout: float,
        listeners: tuple[Listener | None, Listener | None] = (None, None),
    ) -> Finished:
        with_sudo = sudo and self._needs_sudo()
        channel = self._transport.execute(command_line(argv, sudo=with_sudo))
        try:
            done = self._talk(channel, argv, pieces, time.monotonic() + timeout, listeners)
        finally:
            channel.close()
        if done.code == -1:
            if self._transport.broken:
                raise self._transport.lost()
            raise self._failed(argv, Finished(-1, done.stdout, "ended by a signal"))
        if with_sudo and done.code != 0:
            problem = sudo_problem(done.stderr, self.check(["id", "-un"]).strip())
            if problem is not None:
                raise SudoUnavailable(self.name, problem)
        return done

    def _talk(
        self,
        channel: Channel,
        argv: Sequence[str],
        pieces: Iterator[bytes],
        deadline: float,
        listeners: tuple[Listener | None, Listener | None],
    ) -> Finished:
        heard = [_Heard(listener) for listener in listeners]
        readers = [
            threading.Thread(target=one.take_all, args=(channel.read(errors=errors),), daemon=True)
            for errors, one in zip((False, True), heard, strict=True)
        ]
        for reader in readers:
            reader.start()
        try:
            for piece in pieces:
                channel.write(piece, deadline - time.monotonic())
        except BrokenPipeError:
            pass  # it ended before it had read all: its exit code tells
        except TimeoutError:
            deadline = 0.0
        channel.end_input()
        code = channel.wait(deadline - time.monotonic())
        if code is None:
            channel.close()
        for reader in readers:
            reader.join()
        if code is None:
            if self._transport.broken:
                raise self._transport.lost()
            raise RemoteTimeout(self.name, f"`{shown(argv)}` did not end in time")
        out, err = (one.text() for one in heard)
        return Finished(code, out, err)

    def _not_written(self, target: str, done: Finished) -> RemoteCommandFailed:
        said = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        reason = said.rpartition(": ")[2]
        return RemoteCommandFailed(self.name, f"{target} cannot be written: {reason}", done.code)

    def _failed(self, argv: Sequence[str], done: Finished) -> RemoteCommandFailed:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        lines = "".join(f"\n  {line}" for line in said)
        sentence = f"`{shown(argv)}` failed with exit code {done.code}{':' if lines else ''}{lines}"
        return RemoteCommandFailed(self.name, sentence, done.code)


class _Heard:
    """One stream: all of it, or only its end when a listener takes it."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def take_all(self, stream: Iterator[bytes]) -> None:
        for data in stream:
            self._pieces.append(data)
            self._size += len(data)
            if self._listener is not None:
                self._listener(data)
                while self._size - len(self._pieces[0]) >= _KEPT:
                    self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        return b"".join(self._pieces).decode("utf-8", "surrogateescape")


def _pieces(source: Path, offset: int, progress: Progress | None) -> Iterator[bytes]:
    with source.open("rb") as file:
        file.seek(offset)
        sent = 0
        while piece := file.read(_CHUNK):
            yield piece
            sent += len(piece)
            if progress is not None:
                progress(sent)
