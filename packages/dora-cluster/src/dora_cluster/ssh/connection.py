"""A connection to a machine for commands, also with sudo, and files; blocking, for threads."""

from __future__ import annotations

import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dora_cluster.ssh.errors import NOT_ENDED, RemoteCommandFailed, RemoteTimeout, SudoUnavailable
from dora_cluster.ssh.transport import CommandChannel, Transport, open_transport

SILENCE = 30.0
"""Seconds without an answer after which a connection counts as broken."""
_CHUNK = 1 << 18
_WRITE = """\
umask 077
cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1" || { rm -f "$1.new"; exit 1; }"""
_READ = 'if [ -e "$1" ]; then cat "$1"; else exit 44; fi'
_APPEND = 'cat >>"$1"'
_NO_SUCH_FILE = 44

_KEPT = 1 << 16
_SEND_SECONDS = 3600.0

Progress = Callable[[int], None]
Listener = Callable[[bytes], None]

NEEDS_PASSWORD = (
    "a password is required",
    "a terminal is required",
    "no tty present",
    "askpass",
    "is not in the sudoers file",
    "not allowed to execute",
    "is not allowed to run sudo",
    "may not run sudo",
)
NEEDS_TERMINAL = ("you must have a tty",)
SUDO_LOCALE: Mapping[str, str] = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
"""Variables with which sudo prints the texts above."""


def command_line(argv: Sequence[str], *, sudo: bool = False) -> str:
    """Return the text for the login shell: every word quoted for a POSIX shell."""
    if not argv:
        raise ValueError("a command needs at least one word")
    for word in argv:
        if "\0" in word:
            raise ValueError(f"a NUL character cannot be part of a command: {word!r}")
    variables = [f"{name}={value}" for name, value in SUDO_LOCALE.items()]
    prefix = ["env", *variables, "sudo", "-n", "--"] if sudo else []
    return shlex.join([*prefix, *argv])


def shown(argv: Sequence[str]) -> str:
    """Return a command for a message: at most 80 characters, scripts as `...`."""
    words = ["..." if "\n" in word else word for word in argv]
    text = shlex.join(words)
    return text if len(text) <= 80 else f"{text[:77]}..."


def sudo_problem(stderr: str, user: str) -> str | None:
    """Return why `sudo -n` refused; None if something else failed."""
    if any(line.startswith("env: ") and "sudo" in line for line in stderr.splitlines()):
        return f"sudo is not installed there, and {user} is not root"
    if any(text in stderr for text in NEEDS_TERMINAL):
        return (
            f"sudo requires a terminal there (requiretty in sudoers); lift that for {user}: "
            f"put `Defaults:{user} !requiretty` into /etc/sudoers.d/dora there (visudo -f "
            "/etc/sudoers.d/dora)"
        )
    lines = [line for line in stderr.splitlines() if line.startswith(("sudo", "Sorry, user", user))]
    if any(text in line for line in lines for text in NEEDS_PASSWORD):
        return (
            f"sudo requires a password for {user} (or has no rule for it); allow it without one: "
            f"put `{user} ALL=(ALL) NOPASSWD: ALL` into /etc/sudoers.d/dora there"
        )
    return None


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to connect to; None: as in `~/.ssh/config`, or the default."""

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    label: str | None = None
    """Its name in messages, beside the address."""

    @property
    def name(self) -> str:
        address = f"{self.user}@{self.host}" if self.user else self.host
        return f"{self.label} ({address})" if self.label else address


@dataclass(frozen=True, slots=True)
class Finished:
    """Result of a remote command; only the last 64 KiB of output that a listener received."""

    code: int
    stdout: str
    stderr: str


def connect(target: Target, *, silence: float | None = None) -> Connection:
    """Log in; raises SshError.

    ``silence``: seconds without an answer after which it counts as broken (SILENCE), at least 3.
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
        """Run a command without a terminal, regardless of its exit code.

        After ``timeout`` seconds the command may continue to run; output that processes in the
        background still write is ignored then.

        ``on_output`` and ``on_errors`` get stdout and stderr while it runs, each from its own
        thread; an OSError that they raise ends the command. Raises RemoteTimeout, ConnectionLost,
        SudoUnavailable, RemoteCommandFailed after a signal, and that OSError.
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
        """Like ``run``, for a command that gets its input piece by piece while it runs."""
        return self._run(argv, pieces, sudo=False, timeout=timeout, listeners=(on_output, None))

    def check(
        self, argv: Sequence[str], *, stdin: bytes = b"", sudo: bool = False, timeout: float = 60.0
    ) -> str:
        """Return the output; raises RemoteCommandFailed unless the exit code is 0."""
        done = self.run(argv, stdin=stdin, sudo=sudo, timeout=timeout)
        if done.code != 0:
            raise self._failed(argv, done)
        return done.stdout

    def script(self, text: str, *arguments: str, sudo: bool = False) -> str:
        """Like ``check``, for a script of the POSIX shell, independent of the login shell."""
        return self.check(["sh", "-c", text, "sh", *arguments], sudo=sudo)

    # ------------------------------------------------------------------------ files

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Append ``source`` from ``offset`` on to ``target``; ``progress`` gets bytes sent."""
        words = ["sh", "-c", _APPEND, "sh", target]
        pieces = _pieces(source, offset, progress)
        done = self._run(words, pieces, sudo=False, timeout=_SEND_SECONDS)
        if done.code != 0:
            raise self._not_written(target, done)

    def write(self, target: str, content: bytes, *, mode: int = 0o644, sudo: bool = False) -> None:
        """Replace a small file atomically; its folder must exist."""
        words = ["sh", "-c", _WRITE, "sh", target, f"{mode:o}"]
        done = self.run(words, stdin=content, sudo=sudo)
        if done.code != 0:
            raise self._not_written(target, done)

    def read(self, path: str, *, sudo: bool = False) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        words = ["sh", "-c", _READ, "sh", path]
        done = self.run(words, sudo=sudo)
        if done.code == _NO_SUCH_FILE:
            return None
        if done.code != 0:
            raise self._failed(["read", path], done)
        return done.stdout.encode("utf-8", "surrogateescape")

    # ------------------------------------------------------------------------ running

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
            done = self._exchange(channel, argv, pieces, time.monotonic() + timeout, listeners)
        finally:
            channel.close()
        if done.code == -1:
            if self._transport.broken:
                raise self._transport.lost()
            raise self._failed(argv, done)
        if with_sudo and done.code != 0:
            problem = sudo_problem(done.stderr, self.check(["id", "-un"]).strip())
            if problem is not None:
                raise SudoUnavailable(self.name, problem)
        return done

    def _exchange(
        self,
        channel: CommandChannel,
        argv: Sequence[str],
        pieces: Iterator[bytes],
        deadline: float,
        listeners: tuple[Listener | None, Listener | None],
    ) -> Finished:
        outputs = [_Output(listener, channel.close) for listener in listeners]
        readers = [
            threading.Thread(target=one.take_all, args=(channel.read(errors=errors),), daemon=True)
            for errors, one in zip((False, True), outputs, strict=True)
        ]
        for reader in readers:
            reader.start()
        try:
            for piece in pieces:
                channel.write(piece, deadline - time.monotonic())
        except BrokenPipeError:
            pass  # it ended before it had read all; its exit code shows why
        except TimeoutError:
            deadline = 0.0
        channel.end_input()
        code = channel.wait(deadline - time.monotonic())
        if code is not None:
            for reader in readers:  # processes in the background may keep the output open
                reader.join(max(0.0, deadline - time.monotonic()))
        channel.close()
        for reader in readers:
            reader.join()
        for one in outputs:
            if one.failure is not None:
                raise one.failure
        if code is None:
            if self._transport.broken:
                raise self._transport.lost()
            raise RemoteTimeout(self.name, f"`{shown(argv)}` {NOT_ENDED}")
        out, err = (one.text() for one in outputs)
        return Finished(code, out, err)

    def _not_written(self, target: str, done: Finished) -> RemoteCommandFailed:
        line = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        reason = line.rpartition(": ")[2]
        return RemoteCommandFailed(self.name, f"{target} cannot be written: {reason}", done.code)

    def _failed(self, argv: Sequence[str], done: Finished) -> RemoteCommandFailed:
        printed = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        lines = "".join(f"\n  {line}" for line in printed)
        end = f"failed with exit code {done.code}" if done.code >= 0 else "was ended by a signal"
        sentence = f"`{shown(argv)}` {end}{':' if lines else ''}{lines}"
        return RemoteCommandFailed(self.name, sentence, done.code)


class _Output:
    """One stream: all of it, or only its end if a listener gets it."""

    def __init__(self, listener: Listener | None, end_command: Callable[[], None]) -> None:
        """``end_command``: called when the listener fails."""
        self._listener = listener
        self._end_command = end_command
        self.failure: OSError | None = None
        """Error of the listener."""
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def take_all(self, stream: Iterator[bytes]) -> None:
        for data in stream:
            self._pieces.append(data)
            self._size += len(data)
            if self._listener is not None:
                try:
                    self._listener(data)
                except OSError as error:
                    self.failure = error
                    self._end_command()  # it would wait for its output to be read
                    return
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
